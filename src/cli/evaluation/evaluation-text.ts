import { type AccessSite } from '../../api/index.js';
import {
  formatTrace,
  type Result,
  resultText,
  SKIPPED_TEXT,
  type TraceEntry,
} from '../../conformance/index.js';
import { paragraph } from '../paragraph.js';
import { type CellResult, COLUMNS } from './cell.js';
import { type Evaluation } from './evaluation.js';

/** A evaluation for people: what it declares, which sites are not intercepted, and each property with its sites. */
export function evaluationLines(evaluation: Evaluation, columns: number): string[] {
  const { facts, cells } = evaluation;
  const properties = [...new Set(cells.map(({ property }) => property))];
  return [
    ...(facts ? paragraph(`${facts.name}: ${facts.title} (${facts.status})`, columns, 2) : []),
    ...effectLines(evaluation, columns),
    ...beyondLines(evaluation, columns),
    ...unmediatedLines(cells, columns),
    '',
    ...properties.flatMap((property) =>
      propertyLines(
        property,
        cells.filter((cell) => cell.property === property),
        columns,
      ),
    ),
    '',
    countLine(evaluation),
  ];
}

const OUTCOMES = [
  'holds',
  'fails',
  'unmediated',
  'not-applicable',
  'skipped',
] as const satisfies readonly Result['outcome'][];

/** How many cells came out how. */
export const countsOf = (cells: readonly CellResult[]): Readonly<Record<Result['outcome'], number>> =>
  Object.fromEntries(
    OUTCOMES.map((outcome) => [outcome, cells.filter((cell) => cell.outcome === outcome).length]),
  ) as Record<Result['outcome'], number>;

function countLine({ target, cells }: Evaluation): string {
  const counts = countsOf(cells);
  return `${target}: ${OUTCOMES.map((outcome) => `${counts[outcome]} ${outcome.replace('-', ' ')}`).join(', ')}`;
}

/** Sites by what a missing page does to them. */
function effectLines({ declared }: Evaluation, columns: number): string[] {
  if (!declared) return [];
  const byEffect = new Map<string, AccessSite[]>();
  for (const site of COLUMNS) {
    const effect = declared.coverage.find((row) => row.site === site)?.effect ?? 'unmediated';
    byEffect.set(effect, [...(byEffect.get(effect) ?? []), site]);
  }
  return [...byEffect].flatMap(([effect, sites]) =>
    paragraph(`  ${effect.padEnd(11)} ${sites.join(', ')}`, columns, 14),
  );
}

/** Sites at which no access can be made on this host: said once. */
function beyondLines({ declared }: Evaluation, columns: number): string[] {
  const beyond = declared ? COLUMNS.filter((site) => !declared.sites.includes(site)) : [];
  return beyond.length > 0
    ? paragraph(`  not tried   ${beyond.join(', ')}: ${SKIPPED_TEXT}`, columns, 14)
    : [];
}

/** Once a site, with an access that goes through. */
function unmediatedLines(cells: readonly CellResult[], columns: number): string[] {
  return cells.flatMap((cell) =>
    cell.outcome === 'unmediated' && cell.failure
      ? [
          '',
          ...paragraph(`UNMEDIATED    ${cell.site!}: ${resultText(cell)}`, columns, 14),
          ...traceLines(cell.trace),
        ]
      : [],
  );
}

function propertyLines(property: string, cells: readonly CellResult[], columns: number): string[] {
  const groups = new Map<string, CellResult[]>();
  for (const cell of cells) {
    // Said once, above.
    if (cell.outcome === 'skipped' || (cell.outcome === 'unmediated' && cells.length > 1)) continue;
    const key = resultKey(cell);
    groups.set(key, [...(groups.get(key) ?? []), cell]);
  }
  return [...groups.values()].flatMap((group) => {
    const [first] = group;
    const sites = group.flatMap(({ site }) => site ?? []);
    const title = sites.length > 0 ? `${property}: ${sites.join(', ')}` : property;
    return resultLines(first!, title, columns);
  });
}

/** What tells accessors apart. */
const OF_ACCESSORS: readonly string[] = ['accessor', 'awaited', 'waiting'];

/** Results with the same key differ in their accessors only. */
export function resultKey(result: Result): string {
  switch (result.outcome) {
    case 'fails':
      return JSON.stringify(result.failure, (name, value: unknown) =>
        OF_ACCESSORS.includes(name) ? undefined : value,
      );
    case 'not-applicable':
      return result.reason;
    default:
      return result.outcome;
  }
}

function resultLines(result: Result, title: string, columns: number): string[] {
  const said = resultText(result);
  switch (result.outcome) {
    case 'holds':
      return paragraph(`holds         ${title} (${said})`, columns, 14);
    case 'unmediated':
      return paragraph(`unmediated    ${title}`, columns, 14);
    case 'not-applicable':
    case 'skipped':
      return paragraph(`n/a           ${title}: ${said}`, columns, 14);
    case 'fails': {
      const { trace, replay } = result;
      const again = replay ? `; again with seed ${replay.seed}, path '${replay.path}'` : '';
      return [...paragraph(`FAILS         ${title}: ${said}${again}`, columns, 14), ...traceLines(trace)];
    }
  }
}

const traceLines = (trace: readonly TraceEntry[]): string[] =>
  formatTrace(trace).map((line) => `        ${line}`);
