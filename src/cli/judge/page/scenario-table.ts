import { type MatrixDocument, type MatrixRow } from '../matrix.js';
import { GRADES } from './look.js';
import { html, type Markup } from './markup.js';
import { opener, type Popover, storyMarkup } from './popover.js';
import { groupedRows, nameOf, scrolling } from './table.js';

const scenarioId = (row: MatrixRow, scenario: string): string =>
  `play-${nameOf(row).replaceAll(/[^a-z0-9+-]+/gi, '-')}-${scenario}`;

/** Candidates by scenarios: the worst case of each. */
export function scenarioTable({ scenarios, rows }: MatrixDocument): Markup {
  const played = rows.filter((row) => row.scenarios.length > 0);
  const head = html`<thead>
    <tr>
      <th class="corner" scope="col">UAPI</th>
      ${scenarios.map(({ name, plays }) => html`<th scope="col" title="${plays}">${name}</th>`)}
    </tr>
  </thead>`;
  const body = groupedRows(played, scenarios.length, (row) =>
    scenarios.map(({ name, title }) => {
      const verdict = row.scenarios.find(({ scenario }) => scenario === name);
      if (!verdict) return html`–`;
      const { look, sign } = GRADES[verdict.grade];
      return opener(scenarioId(row, name), look, sign, `${nameOf(row)}, ${title}: ${verdict.grade}`);
    }),
  );
  return scrolling(
    'Scenarios: UAPIs by scenarios',
    html`<table>
      ${head}${body}
    </table>`,
  );
}

const TOLD: readonly string[] = ['fails', 'hangs', 'silent'];

export const scenarioPopovers = ({ scenarios, rows }: MatrixDocument): Popover[] =>
  rows.flatMap((row) =>
    row.scenarios.map(({ scenario, cases }) => ({
      id: scenarioId(row, scenario),
      title: `${nameOf(row)}: ${scenarios.find(({ name }) => name === scenario)?.title ?? scenario}`,
      body: html`<p class="soft">${scenarios.find(({ name }) => name === scenario)?.plays}</p>
        ${cases.map(
          ({ case: name, grade, says, timeline }) =>
            html`<p>
                <span class="verdict ${GRADES[grade].look}">${GRADES[grade].sign}</span>
                <strong>${name}</strong>: ${says}.
              </p>
              ${TOLD.includes(grade) ? storyMarkup(timeline) : ''}`,
        )}`,
    })),
  );
