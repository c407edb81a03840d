import { type JudgedCell, type CellVerdict } from '../cell.js';
import { type MatrixDocument, type MatrixRow } from '../matrix.js';
import { VERDICTS } from './look.js';
import { html, type Markup } from './markup.js';
import { opener, type Popover, storyMarkup } from './popover.js';
import { groupedRows, isJudged, nameOf, scrolling } from './table.js';

export const propertyId = (row: number, property: string): string =>
  `of-${row}-${property.replaceAll(/[^a-z]+/g, '-')}`;

const cellsOf = ({ cells }: MatrixRow, property: string): readonly JudgedCell[] =>
  cells.filter((cell) => cell.property === property);

/** From what matters most to what says least. */
const RANK: readonly CellVerdict['verdict'][] = ['fails', 'holds', 'unmediated', 'not-applicable'];

/** Candidates by properties: over the sites, what matters most. */
export function propertyTable({ properties, rows }: MatrixDocument): Markup {
  const head = html`<thead>
    <tr>
      <th class="corner" scope="col">UAPI</th>
      ${properties.map(({ property }) => html`<th class="tall" scope="col"><span>${property}</span></th>`)}
    </tr>
  </thead>`;
  const body = groupedRows(rows, properties.length, (row, at) =>
    properties.map(({ property }) => cellMarkup(row, at, property)),
  );
  return scrolling(
    'Properties: UAPIs by named properties',
    html`<table class="dense">
      ${head}${body}
    </table>`,
  );
}

/** A failure, or else that it holds somewhere; where it does neither, what is so at most sites. */
function leading(cells: readonly JudgedCell[]): CellVerdict['verdict'] {
  const count = (kind: CellVerdict['verdict']): number =>
    cells.filter(({ result }) => result.verdict === kind).length;
  if (count('fails') > 0) return 'fails';
  if (count('holds') > 0) return 'holds';
  return count('unmediated') > count('not-applicable') ? 'unmediated' : 'not-applicable';
}

function cellMarkup(row: MatrixRow, at: number, property: string): Markup {
  const cells = cellsOf(row, property);
  const verdict = leading(cells);
  const those = cells.filter(({ result }) => result.verdict === verdict);
  const sites = those.filter(({ site }) => site !== undefined).length;
  const { look, sign, means } = VERDICTS[verdict];
  const counted = verdict === 'fails' || verdict === 'holds';
  const says = `${nameOf(row)}, ${property}: ${means}${sites > 0 && counted ? ` at ${sites} sites` : ''}`;
  return opener(propertyId(at, property), look, sites > 0 && counted ? `${sign}${sites}` : sign, says);
}

/** What opens from its cells. */
export const propertyPopovers = ({ properties, rows, options }: MatrixDocument): Popover[] =>
  rows.flatMap((row, at) =>
    isJudged(row)
      ? properties.map(({ property, claim }) => ({
          id: propertyId(at, property),
          title: `${nameOf(row)}: ${property}`,
          body: html`<p>Claim: ${claim}.</p>
            ${groupsOf(row, property).map((group) => groupMarkup(group, row, options.seed))}`,
        }))
      : [],
  );

/** Cells that say the same, with their sites. */
interface Group {
  readonly result: CellVerdict;
  readonly sites: string[];
}

function groupsOf(row: MatrixRow, property: string): readonly Group[] {
  const groups = new Map<string, Group>();
  for (const { site, result } of cellsOf(row, property)) {
    const key = `${RANK.indexOf(result.verdict)} ${wordsOf(result)}`;
    const group = groups.get(key);
    if (group) group.sites.push(site ?? '');
    else groups.set(key, { result, sites: [site ?? ''] });
  }
  return [...groups].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, group]) => group);
}

function wordsOf(result: CellVerdict): string {
  if (result.verdict === 'fails') return result.what.replaceAll(/[a-z-]+#\d+/g, '');
  return result.verdict === 'not-applicable' ? result.reason : '';
}

function groupMarkup({ result, sites }: Group, row: MatrixRow, seed: number): Markup {
  const { look, sign } = VERDICTS[result.verdict];
  const where = sites.filter((site) => site !== '').join(', ');
  const head = html`<span class="verdict ${look}">${sign} ${result.verdict.replace('-', ' ')}</span>
    ${where ? `at ${where}` : 'for the backend as a whole'}`;
  switch (result.verdict) {
    case 'holds':
      return html`<p>
        ${head}: ${result.runs} runs${sites.length > 1 ? ' each, or as many as there was time for' : ''}.
      </p>`;
    case 'unmediated':
      return html`<p>${head}.</p>`;
    case 'not-applicable':
      return html`<p>${head}: ${result.reason}.</p>`;
    case 'fails':
      return html`<p>${head}: <strong>${result.what}</strong></p>
        ${storyMarkup(result.story)}
        ${result.path === undefined ? '' : html`<p class="soft">Found with seed ${result.seed ?? seed}; path <code>${result.path}</code> of the suite plays it again on ${nameOf(row)}. The run: <code>${result.plan ?? ''}</code></p>`}`;
  }
}
