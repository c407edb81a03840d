import { type HazardRow, type MatrixDocument } from '../matrix.js';
import { html, type Markup } from './markup.js';
import { opener, type Popover, storyMarkup } from './popover.js';

const hazardId = (hazard: string, candidate: string): string =>
  `hazard-${hazard}-${candidate.replaceAll(/[^a-z0-9+-]+/gi, '-')}`;

/** What the thread fears, and who has it. */
export const hazardList = ({ hazards, options }: MatrixDocument): Markup =>
  html`<ul class="hazards">
    ${hazards.map((hazard) => hazardMarkup(hazard, options.runs))}
  </ul>`;

function hazardMarkup({ name, title, said, shownBy, has, hasNot }: HazardRow, runs: number): Markup {
  const list =
    has.length === 0
      ? html`<p>Seen of nobody here, in ${runs} runs of each property.</p>`
      : html`<ul class="has">
          ${has.map(({ candidate, what }) => html`<li>${opener(hazardId(name, candidate), 'fails', candidate, `${candidate}: ${what}`)}</li>`)}
        </ul>`;
  return html`<li id="hazard-${name}">
    <h3>${title}</h3>
    <p class="soft">${said}. Shown by: ${shownBy}. ${hasNot.length} looked at do not have it.</p>
    ${list}
  </li> `;
}

export const hazardPopovers = ({ hazards }: MatrixDocument): Popover[] =>
  hazards.flatMap(({ name, title, has }) =>
    has.map(({ candidate, what, story }) => ({
      id: hazardId(name, candidate),
      title: `${candidate}: ${title}`,
      body: html`<p><strong>${what}</strong></p>
        ${storyMarkup(story)}`,
    })),
  );
