import { type HazardRow, type HazardShown, type MatrixDocument } from '../matrix.js';
import { formatTrace, resultText } from '../../../conformance/index.js';
import { caseText, formatScenarioTrace } from '../../../scenarios/index.js';
import { type Shown } from '../thread-hazards.js';
import { html, type Markup } from './markup.js';
import { opener, type Popover, traceMarkup } from './popover.js';

const hazardId = (hazard: string, target: string): string =>
  `hazard-${hazard}-${target.replaceAll(/[^a-z0-9+-]+/gi, '-')}`;

/** What the thread fears, and who has it. */
export const hazardList = ({ hazards, options }: MatrixDocument): Markup =>
  html`<ul class="hazards">
    ${hazards.map((hazard) => hazardMarkup(hazard, options.runs))}
  </ul>`;

function hazardMarkup({ name, title, said, shown, has, hasNot }: HazardRow, runs: number): Markup {
  const list =
    has.length === 0
      ? html`<p>Seen of no target here, in ${runs} runs of each property.</p>`
      : html`<ul class="has">
          ${has.map(({ target, result }) => html`<li>${opener(hazardId(name, target), 'fails', target, `${target}: ${textOf(result)}`)}</li>`)}
        </ul>`;
  return html`<li id="hazard-${name}">
    <h3>${title}</h3>
    <p class="soft">${said}. Shown by: ${shownBy(shown)}. ${hasNot.length} looked at do not have it.</p>
    ${list}
  </li> `;
}

export const hazardPopovers = ({ hazards }: MatrixDocument): Popover[] =>
  hazards.flatMap(({ name, title, has }) =>
    has.map(({ target, result }) => ({
      id: hazardId(name, target),
      title: `${target}: ${title}`,
      body: html`<p><strong>${textOf(result)}</strong></p>
        ${traceMarkup(linesOf(result))}`,
    })),
  );

/** What a hazard was shown by, in a sentence. */
export const textOf = (result: HazardShown['result']): string =>
  'case' in result ? caseText(result) : resultText(result);

function linesOf(result: HazardShown['result']): readonly string[] {
  if ('case' in result) return formatScenarioTrace(result.trace);
  return 'trace' in result ? formatTrace(result.trace) : [];
}

function shownBy(shown: Shown): string {
  switch (shown.by) {
    case 'site':
      return `unmediated at ${shown.site}`;
    case 'property':
      return `fails ${shown.property} (${Object.values(shown.failure).join(', ')})`;
    case 'scenario':
      return `scenario ${shown.scenario}, ${shown.case}: ${[shown.seen].flat().join(' or ')}`;
  }
}
