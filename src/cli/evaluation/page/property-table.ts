import { formatTrace, type Result, resultText } from '../../../conformance/index.js';
import { type CellResult } from '../cell.js';
import { resultKey } from '../evaluation-text.js';
import { type MatrixDocument, type MatrixRow } from '../matrix.js';
import { OUTCOMES } from './look.js';
import { html, type Markup } from './markup.js';
import { opener, type Popover, traceMarkup } from './popover.js';
import { groupedRows, isEvaluated, nameOf, scrolling } from './table.js';

export const propertyId = (row: number, property: string): string =>
  `of-${row}-${property.replaceAll(/[^a-z]+/g, '-')}`;

const cellsOf = ({ cells }: MatrixRow, property: string): readonly CellResult[] =>
  cells.filter((cell) => cell.property === property);

/** From what matters most to what says least. */
const RANK: readonly Result['outcome'][] = ['fails', 'holds', 'unmediated', 'not-applicable', 'skipped'];

/** Targets by properties: over the sites, what matters most. */
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
function leading(cells: readonly CellResult[]): Result['outcome'] {
  const count = (outcome: Result['outcome']): number =>
    cells.filter((cell) => cell.outcome === outcome).length;
  if (count('fails') > 0) return 'fails';
  if (count('holds') > 0) return 'holds';
  if (count('unmediated') > count('not-applicable') + count('skipped')) return 'unmediated';
  return count('not-applicable') >= count('skipped') ? 'not-applicable' : 'skipped';
}

function cellMarkup(row: MatrixRow, at: number, property: string): Markup {
  const cells = cellsOf(row, property);
  const outcome = leading(cells);
  const those = cells.filter((cell) => cell.outcome === outcome);
  const sites = those.filter(({ site }) => site !== undefined).length;
  const { look, sign, means } = OUTCOMES[outcome];
  const counted = outcome === 'fails' || outcome === 'holds';
  const says = `${nameOf(row)}, ${property}: ${means}${sites > 0 && counted ? ` at ${sites} sites` : ''}`;
  return opener(propertyId(at, property), look, sites > 0 && counted ? `${sign}${sites}` : sign, says);
}

/** What opens from its cells. */
export const propertyPopovers = ({ properties, rows }: MatrixDocument): Popover[] =>
  rows.flatMap((row, at) =>
    isEvaluated(row)
      ? properties.map(({ property, claim }) => ({
          id: propertyId(at, property),
          title: `${nameOf(row)}: ${property}`,
          body: html`<p>Claim: ${claim}.</p>
            ${groupsOf(row, property).map((group) => groupMarkup(group, row))}`,
        }))
      : [],
  );

/** Cells that say the same, with their sites. */
interface Group {
  readonly result: CellResult;
  readonly sites: string[];
}

function groupsOf(row: MatrixRow, property: string): readonly Group[] {
  const groups = new Map<string, Group>();
  for (const result of cellsOf(row, property)) {
    const key = `${RANK.indexOf(result.outcome)} ${resultKey(result)}`;
    const group = groups.get(key);
    if (group) group.sites.push(result.site ?? '');
    else groups.set(key, { result, sites: [result.site ?? ''] });
  }
  return [...groups].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, group]) => group);
}

function groupMarkup({ result, sites }: Group, row: MatrixRow): Markup {
  const { look, sign } = OUTCOMES[result.outcome];
  const where = sites.filter((site) => site !== '').join(', ');
  const head = html`<span class="outcome ${look}">${sign} ${result.outcome.replace('-', ' ')}</span>
    ${where ? `at ${where}` : 'for the backend as a whole'}`;
  switch (result.outcome) {
    case 'holds':
      return html`<p>
        ${head}: ${result.runs} runs${sites.length > 1 ? ' each, or as many as there was time for' : ''}.
      </p>`;
    case 'unmediated':
      return html`<p>${head}.</p>`;
    case 'not-applicable':
    case 'skipped':
      return html`<p>${head}: ${resultText(result)}.</p>`;
    case 'fails': {
      const { replay, trace } = result;
      return html`<p>${head}: <strong>${resultText(result)}</strong></p>
        ${traceMarkup(formatTrace(trace))}
        ${replay && html`<p class="soft">Found with seed ${replay.seed}; path <code>${replay.path}</code> of the suite repeats it on ${nameOf(row)}. The run: <code>${replay.plan}</code></p>`}`;
    }
  }
}
