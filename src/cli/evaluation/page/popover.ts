import { html, type Markup } from './markup.js';

/** Text that opens over the page when a cell is pressed: no script, the browser's own popover. */
export interface Popover {
  readonly id: string;
  readonly title: string;
  readonly body: Markup;
}

export const popoverMarkup = ({ id, title, body }: Popover): Markup =>
  html`<div popover id="${id}" role="dialog" aria-label="${title}">
    <header>
      <h3>${title}</h3>
      <button class="close" popovertarget="${id}" popovertargetaction="hide" aria-label="Close">✕</button>
    </header>
    <div class="body">${body}</div>
  </div> `;

/** A button that opens one. `says`: what it is, for readers who do not see its colour. */
export const opener = (id: string, look: string, label: string, says: string): Markup =>
  html`<button class="cell ${look}" popovertarget="${id}" aria-label="${says}" title="${says}">
    ${label}
  </button>`;

export const traceMarkup = (lines: readonly string[]): Markup | undefined =>
  lines.length === 0 ? undefined : html`<pre class="trace" tabindex="0">${lines.join('\n')}</pre>`;
