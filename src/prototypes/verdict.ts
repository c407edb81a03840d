import { ACCESS_CLASSES, type AccessSite, type Coverage, coverageGaps } from '../api/index.js';
import { checkProperties, type CheckOptions, PROPERTIES, type Report } from '../conformance/index.js';
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
  /** Which properties, by name. Default: all. */
  readonly only?: readonly string[];
}

/**
 * Runs the conformance suite, and the scenarios of {@link HAZARDS}, on a prototype. Keeps this thread busy, with
 * the default of 1000 runs a property, for some seconds. A property that does not hold is a result, no exception.
 */
export async function verdict<Options extends object>(
  uapi: Uapi<Options>,
  use: UapiUse<Options> = {},
  options: VerdictOptions = {},
): Promise<Verdict> {
  const subject = uapi.subject(use);
  const { only } = options;
  const wanted = [...PROPERTIES, ...HAZARDS].filter(({ name }) => only?.includes(name) ?? true);
  const reports = await checkProperties(wanted, subject, options);
  const coverage = uapi.coverage(use);
  const unmediated = coverageGaps(coverage, ACCESS_CLASSES);
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
  const title = report.part ? `${report.name}: ${report.part}` : report.name;
  switch (report.outcome) {
    case 'held':
      return `holds           ${title} (${report.runs} runs)`;
    case 'skipped':
      return `not applicable  ${title}: ${report.reason}`;
    case 'failed':
      return `FAILS           ${title}\n${report.message.replaceAll(/^/gm, '    ')}`;
  }
}
