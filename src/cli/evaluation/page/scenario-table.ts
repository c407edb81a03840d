import { type MatrixDocument, type MatrixRow } from '../matrix.js';
import { caseText, formatScenarioTrace } from '../../../scenarios/index.js';
import { CASE_OUTCOMES } from './look.js';
import { html, type Markup } from './markup.js';
import { opener, type Popover, traceMarkup } from './popover.js';
import { groupedRows, nameOf, scrolling } from './table.js';

const scenarioId = (row: MatrixRow, scenario: string): string =>
  `scenario-${nameOf(row).replaceAll(/[^a-z0-9+-]+/gi, '-')}-${scenario}`;

/** Targets by scenarios: the worst case of each. */
export function scenarioTable({ scenarios, rows }: MatrixDocument): Markup {
  const withScenarios = rows.filter((row) => row.scenarios.length > 0);
  const head = html`<thead>
    <tr>
      <th class="corner" scope="col">UAPI</th>
      ${scenarios.map(({ name, description }) => html`<th scope="col" title="${description}">${name}</th>`)}
    </tr>
  </thead>`;
  const body = groupedRows(withScenarios, scenarios.length, (row) =>
    scenarios.map(({ name, title }) => {
      const result = row.scenarios.find(({ scenario }) => scenario === name);
      if (!result) return html`–`;
      const { look, sign } = CASE_OUTCOMES[result.outcome];
      return opener(scenarioId(row, name), look, sign, `${nameOf(row)}, ${title}: ${result.outcome}`);
    }),
  );
  return scrolling(
    'Scenarios: UAPIs by scenarios',
    html`<table>
      ${head}${body}
    </table>`,
  );
}

const TRACED: readonly string[] = ['fails', 'hangs', 'silent'];

export const scenarioPopovers = ({ scenarios, rows }: MatrixDocument): Popover[] =>
  rows.flatMap((row) =>
    row.scenarios.map(({ scenario, cases }) => ({
      id: scenarioId(row, scenario),
      title: `${nameOf(row)}: ${scenarios.find(({ name }) => name === scenario)?.title ?? scenario}`,
      body: html`<p class="soft">${scenarios.find(({ name }) => name === scenario)?.description}</p>
        ${cases.map(
          (result) =>
            html`<p>
                <span class="outcome ${CASE_OUTCOMES[result.outcome].look}"
                  >${CASE_OUTCOMES[result.outcome].sign}</span
                >
                <strong>${result.case}</strong>: ${caseText(result)}.
              </p>
              ${TRACED.includes(result.outcome) ? traceMarkup(formatScenarioTrace(result.trace)) : ''}`,
        )}`,
    })),
  );
