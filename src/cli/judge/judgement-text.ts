import { type AccessSite } from '../../api/index.js';
import { paragraph } from '../paragraph.js';
import { type CellVerdict, COLUMNS, isOutOfReach, type JudgedCell, OUT_OF_REACH } from './cell.js';
import { type Judgement } from './judgement.js';

/** A judgement for people: what it declares, where nobody stands, and each property with its sites. */
export function judgementLines(judgement: Judgement, columns: number): string[] {
  const { facts, cells } = judgement;
  const properties = [...new Set(cells.map(({ property }) => property))];
  return [
    ...(facts ? paragraph(`${facts.name}: ${facts.title} (${facts.status})`, columns, 2) : []),
    ...effectLines(judgement, columns),
    ...beyondLines(judgement, columns),
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
    countLine(judgement),
  ];
}

const KINDS = [
  'holds',
  'fails',
  'unmediated',
  'not-applicable',
] as const satisfies readonly CellVerdict['verdict'][];

/** How many cells came out how. */
export function countsOf(cells: readonly JudgedCell[]): Readonly<Record<CellVerdict['verdict'], number>> {
  const of = (kind: CellVerdict['verdict']): number =>
    cells.filter(({ result }) => result.verdict === kind).length;
  return {
    holds: of('holds'),
    fails: of('fails'),
    unmediated: of('unmediated'),
    'not-applicable': of('not-applicable'),
  };
}

function countLine({ candidate, cells }: Judgement): string {
  const counts = countsOf(cells);
  return `${candidate}: ${KINDS.map((kind) => `${counts[kind]} ${kind.replace('-', ' ')}`).join(', ')}`;
}

/** Sites by what a missing page does to them. */
function effectLines({ declared }: Judgement, columns: number): string[] {
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

/** Sites that nobody can be sent to on this host: said once. */
function beyondLines({ declared }: Judgement, columns: number): string[] {
  const beyond = declared ? COLUMNS.filter((site) => !declared.sites.includes(site)) : [];
  return beyond.length > 0
    ? paragraph(`  not tried   ${beyond.join(', ')}: ${OUT_OF_REACH}`, columns, 14)
    : [];
}

/** Once a site, with an access that goes through. */
function unmediatedLines(cells: readonly JudgedCell[], columns: number): string[] {
  return cells.flatMap(({ site, result }) =>
    result.verdict === 'unmediated' && result.story.length > 0
      ? ['', ...paragraph(`UNMEDIATED    ${site!}: ${result.what}`, columns, 14), ...storyLines(result.story)]
      : [],
  );
}

function propertyLines(property: string, cells: readonly JudgedCell[], columns: number): string[] {
  const groups = new Map<string, JudgedCell[]>();
  for (const cell of cells) {
    // Said once, above.
    if (isOutOfReach(cell.result) || (cell.result.verdict === 'unmediated' && cells.length > 1)) continue;
    const key = keyOf(cell.result);
    groups.set(key, [...(groups.get(key) ?? []), cell]);
  }
  return [...groups.values()].flatMap((group) => {
    const [first] = group;
    const sites = group.flatMap(({ site }) => site ?? []);
    const title = sites.length > 0 ? `${property}: ${sites.join(', ')}` : property;
    return resultLines(first!.result, title, columns);
  });
}

/** Cells with the same key are said in one line. */
function keyOf(result: CellVerdict): string {
  if (result.verdict === 'holds') return 'holds';
  if (result.verdict === 'unmediated') return 'unmediated';
  // The same failure at another site differs in the accessor's name only.
  return result.verdict === 'fails' ? `fails ${result.what.replaceAll(/[a-z-]+#\d+/g, '')}` : result.reason;
}

function resultLines(result: CellVerdict, title: string, columns: number): string[] {
  switch (result.verdict) {
    case 'holds':
      return paragraph(`holds         ${title} (${result.runs} runs)`, columns, 14);
    case 'unmediated':
      return paragraph(`unmediated    ${title}`, columns, 14);
    case 'not-applicable':
      return paragraph(`n/a           ${title}: ${result.reason}`, columns, 14);
    case 'fails': {
      const { what, story, seed, path } = result;
      const again = seed === undefined ? '' : `; again with seed ${seed}, path '${path ?? ''}'`;
      return [...paragraph(`FAILS         ${title}: ${what}${again}`, columns, 14), ...storyLines(story)];
    }
  }
}

const storyLines = (story: readonly string[]): string[] => story.map((line) => `        ${line}`);
