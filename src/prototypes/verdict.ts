import { type AccessSite, type Coverage, unmediatedSites } from '../api/index.js';
import {
  type AnyProperty,
  checkProperties,
  type CheckOptions,
  PROPERTIES,
  type Report,
  titleOf,
} from '../conformance/index.js';
import { HAZARDS } from './hazards.js';
import { type Uapi, type UapiUse } from './uapi.js';

/** What the suite found about a prototype. */
export interface Verdict {
  readonly name: string;
  readonly coverage: Coverage;
  /** Sites at which a missing page goes unnoticed. */
  readonly unmediated: readonly AccessSite[];
  readonly reports: readonly Report[];
  /** The names of the properties that do not hold. */
  readonly failed: readonly string[];
  /** All of it in plain text, each failure with its smallest counterexample: who did what, in order. */
  readonly text: string;
}

export interface VerdictOptions extends CheckOptions {
  /** Which properties: by name, with all of its parts, or by the title of one part, as the text has it. Default: all. */
  readonly only?: readonly string[];
  /** As in {@link CheckOptions}. It belongs to one property: name that one in `only`. */
  readonly path?: string;
}

const ALL: readonly AnyProperty[] = [...PROPERTIES, ...HAZARDS];

function chosen({ only, path }: VerdictOptions): readonly AnyProperty[] {
  const unknown = only?.find((name) => !ALL.some((each) => each.name === name || titleOf(each) === name));
  if (unknown !== undefined)
    throw new RangeError(
      `there is no property '${unknown}': ${[...new Set(ALL.map(({ name }) => name))].join(', ')}`,
    );
  // A whole name that is a title, too, is that one part.
  const titles = ALL.filter((each) => only?.includes(titleOf(each)));
  const wanted =
    path !== undefined && titles.length > 0
      ? titles
      : ALL.filter((each) => only === undefined || only.includes(each.name) || only.includes(titleOf(each)));
  if (path !== undefined && wanted.length !== 1)
    throw new RangeError(
      `a path is of one property, and ${wanted.length} are to be played: name one of them in only, as the text has it`,
    );
  return wanted;
}

/**
 * Runs the conformance suite, and the scenarios of {@link HAZARDS}, on a prototype. Keeps this thread busy, with
 * the default of 1000 runs a property, for some seconds. A property that does not hold is a result, no exception.
 * Errors: RangeError for a name in `only` that is none, or a `path` without one property to play it.
 */
export async function verdict<Options extends object>(
  uapi: Uapi<Options>,
  use: UapiUse<Options> = {},
  options: VerdictOptions = {},
): Promise<Verdict> {
  const subject = uapi.subject(use);
  const reports = await checkProperties(chosen(options), subject, options);
  const coverage = uapi.coverage(use);
  const unmediated = unmediatedSites(coverage);
  const failed = [...new Set(reports.filter(({ outcome }) => outcome === 'failed').map(({ name }) => name))];
  const lines = [
    uapi.matrix(use),
    '',
    unmediated.length > 0 ? `unmediated: ${unmediated.join(', ')}` : 'every access site is mediated',
    '',
    ...reports.map(line),
  ];
  return { name: subject.name, coverage, unmediated, reports, failed, text: lines.join('\n') };
}

function line(report: Report): string {
  const title = titleOf(report);
  switch (report.outcome) {
    case 'held':
      return `holds           ${title} (${report.runs} runs)`;
    case 'skipped':
      return `not applicable  ${title}: ${report.reason}`;
    case 'failed':
      return `FAILS           ${title}\n${report.message.replaceAll(/^/gm, '    ')}`;
  }
}
