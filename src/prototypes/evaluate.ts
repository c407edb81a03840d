import { type AccessSite, type Coverage, unmediatedSites } from '../api/index.js';
import {
  type AnyProperty,
  checkProperties,
  type CheckOptions,
  PROPERTIES,
  resultText,
  failsText,
  type PropertyResult,
  titleOf,
} from '../conformance/index.js';
import { HAZARDS } from './hazards.js';
import { type Uapi, type UapiUse } from './uapi.js';

/** What the suite found about a prototype. */
export interface UapiEvaluation {
  readonly name: string;
  readonly coverage: Coverage;
  /** Sites at which a missing page goes unnoticed. */
  readonly unmediated: readonly AccessSite[];
  readonly results: readonly PropertyResult[];
  /** The names of the properties that do not hold. */
  readonly failed: readonly string[];
  /** All of it in plain text, each failure with the trace of its smallest counterexample. */
  readonly text: string;
}

export interface EvaluateOptions extends CheckOptions {
  /** Which properties: by name, with all of its parts, or by the title of one part, as the text has it. Default: all. */
  readonly only?: readonly string[];
  /** As in {@link CheckOptions}. It belongs to one property: name that one in `only`. */
  readonly path?: string;
}

const ALL: readonly AnyProperty[] = [...PROPERTIES, ...HAZARDS];

function chosen({ only, path }: EvaluateOptions): readonly AnyProperty[] {
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
      `a path is of one property, and ${wanted.length} are to be run: name one of them in only, as the text has it`,
    );
  return wanted;
}

/**
 * Runs the conformance suite, and the scenarios of {@link HAZARDS}, on a prototype. Keeps this thread busy, with
 * the default of 1000 runs a property, for some seconds. A property that does not hold is a result, no exception.
 * Errors: RangeError for a name in `only` that is none, or a `path` without one property to run it.
 */
export async function evaluate<Options extends object>(
  uapi: Uapi<Options>,
  use: UapiUse<Options> = {},
  options: EvaluateOptions = {},
): Promise<UapiEvaluation> {
  const subject = uapi.subject(use);
  const results = await checkProperties(chosen(options), subject, options);
  const coverage = uapi.coverage(use);
  const unmediated = unmediatedSites(coverage);
  const failed = [...new Set(results.filter(({ outcome }) => outcome === 'fails').map(({ name }) => name))];
  const lines = [
    uapi.matrix(use),
    '',
    unmediated.length > 0 ? `unmediated: ${unmediated.join(', ')}` : 'every access site is mediated',
    '',
    ...results.map(line),
  ];
  return { name: subject.name, coverage, unmediated, results, failed, text: lines.join('\n') };
}

function line(result: PropertyResult): string {
  const title = titleOf(result);
  return result.outcome === 'fails'
    ? `FAILS           ${title}\n${failsText(result).replaceAll(/^/gm, '    ')}`
    : `${result.outcome.replace('-', ' ').padEnd(14)}  ${title}: ${resultText(result)}`;
}
