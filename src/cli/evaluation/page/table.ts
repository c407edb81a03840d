import { type MatrixRow } from '../matrix.js';
import { html, type Markup } from './markup.js';

const GROUPS = {
  live: 'On this kernel',
  model: 'Models of what is real',
  proposal: 'Proposals, used as they are meant',
  mistake: 'First versions, and mistakes that they invite',
  module: 'Your own',
} as const;

export const nameOf = ({ target, facts }: MatrixRow): string => facts?.name ?? target;
export const isEvaluated = ({ cells }: MatrixRow): boolean => cells.length > 0;

/** A row of a table: its head, and either cells or why there are none. */
function rowMarkup(row: MatrixRow, width: number, cells: () => readonly Markup[]): Markup {
  const head = html`<th scope="row">${nameOf(row)}<small>${row.facts?.title}</small></th>`;
  const why = row.unavailable ?? row.refused?.message;
  return isEvaluated(row)
    ? html`<tr>
        ${head}${cells().map((cell) => html`<td>${cell}</td>`)}
      </tr> `
    : html`<tr>
        ${head}
        <td colspan="${width}" class="soft">not evaluated here: ${why ?? 'nothing came of it'}</td>
      </tr> `;
}

/** Rows under the name of their group. */
export function groupedRows(
  rows: readonly MatrixRow[],
  width: number,
  cellsOf: (row: MatrixRow, at: number) => readonly Markup[],
): Markup {
  const groups = (Object.keys(GROUPS) as (keyof typeof GROUPS)[]).map((group) => {
    const own = rows.flatMap((row, at) => ((row.facts?.group ?? 'module') === group ? [{ row, at }] : []));
    if (own.length === 0) return html``;
    return html`<tr class="group">
        <th scope="rowgroup" colspan="${width + 1}"><span>${GROUPS[group]}</span></th>
      </tr>
      ${own.map(({ row, at }) => rowMarkup(row, width, () => cellsOf(row, at)))}`;
  });
  return html`<tbody>
    ${groups}
  </tbody>`;
}

/** A table that scrolls by itself where the page is narrow. */
export const scrolling = (label: string, table: Markup): Markup =>
  html`<div class="scroll" role="region" aria-label="${label}" tabindex="0">${table}</div>`;
