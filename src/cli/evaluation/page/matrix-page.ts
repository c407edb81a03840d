import { type MatrixDocument } from '../matrix.js';
import { countsOf } from '../evaluation-text.js';
import { coveragePopovers, coverageTable } from './coverage-table.js';
import { hazardList, hazardPopovers } from './hazard-list.js';
import { EFFECTS, OUTCOMES } from './look.js';
import { html, Markup } from './markup.js';
import { STYLE } from './page-style.js';
import { faultPlot, latencyPlot, scalingPlot } from './plots.js';
import { popoverMarkup } from './popover.js';
import { propertyPopovers, propertyTable } from './property-table.js';
import { scenarioPopovers, scenarioTable } from './scenario-table.js';
import { isEvaluated } from './table.js';

const SECTIONS = {
  coverage: 'Who is stopped where',
  properties: 'What holds',
  hazards: 'What the thread fears',
  scenarios: 'Scenarios',
  plots: 'Latency and faults',
  reading: 'How it was made',
} as const;

/** The matrix as one page that needs nothing else: no script, no network. */
export function matrixPage(document: MatrixDocument): string {
  const popovers = [
    ...coveragePopovers(document),
    ...propertyPopovers(document),
    ...hazardPopovers(document),
    ...scenarioPopovers(document),
  ];
  const page = html`<!doctype html>
    <html lang="en">
      <head>
        <meta charset="utf-8" />
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <title>Demand paging: the UAPIs side by side</title>
        <link rel="icon" href="data:," />
        <style>
          ${new Markup(STYLE)}
        </style>
      </head>
      <body>
        <a class="skip" href="#coverage">To the matrix</a>
        ${headMarkup(document)}
        <main>
          <section id="coverage">
            <h2>${SECTIONS.coverage}</h2>
            <p>
              What a missing page does to an access, by where the access comes from. Press a cell for what was
              seen there: at an open one, an access that goes through; where something fails, who did what.
            </p>
            ${legend(Object.values(EFFECTS))} ${coverageTable(document)}
            <p class="soft">
              ✗ with a number: so many named properties fail at that site. An asterisk: declared, and not
              tried on this host.
            </p>
          </section>
          <section id="properties">
            <h2>${SECTIONS.properties}</h2>
            <p>
              The named properties, each over the sites that it is about. A number says at how many sites.
              Press a cell for the sites, and for the smallest counterexample where it fails.
            </p>
            ${legend(Object.values(OUTCOMES))} ${propertyTable(document)}
          </section>
          <section id="hazards">
            <h2>${SECTIONS.hazards}</h2>
            <p>
              Each hazard that the thread names, who named it, what shows it here, and who has it. Press a
              name for who did what. Each property was run ${document.options.runs} times at each site; what
              needs a rare order of events can be missed by few runs.
            </p>
            ${hazardList(document)}
          </section>
          <section id="scenarios">
            <h2>${SECTIONS.scenarios}</h2>
            <p>What designs must survive, run on the model of each; the worst case of each is shown.</p>
            ${scenarioTable(document)}
          </section>
          <section id="plots">
            <h2>${SECTIONS.plots}</h2>
            <div class="plots">${latencyPlot(document)}${faultPlot(document)}${scalingPlot(document)}</div>
          </section>
          ${readingMarkup(document)}
        </main>
        <footer class="soft">
          Written by <code>demand-paging conformance --matrix</code>; matrix.json beside it has the same in
          data.
        </footer>
        ${popovers.map(popoverMarkup)}
      </body>
    </html> `;
  return page.text;
}

function headMarkup({ date, host, rows, options, elapsed_ms, hazards }: MatrixDocument): Markup {
  const counts = countsOf(rows.flatMap(({ cells }) => cells));
  const facts = {
    made: date.slice(0, 16).replace('T', ' ') + ' UTC',
    kernel: `${host.kernel}, ${host.architecture}`,
    seed: String(options.seed),
    took: `${Math.round(elapsed_ms / 1000)} s`,
  };
  const totals = [
    [rows.filter(isEvaluated).length, 'UAPIs and backends evaluated'],
    [counts.holds + counts.fails, 'properties at sites checked'],
    [counts.fails, 'fail, each with a counterexample'],
    [counts.unmediated, 'are not intercepted'],
    [hazards.filter(({ has }) => has.length > 0).length, `of ${hazards.length} hazards of the thread shown`],
  ] as const;
  return html`<header class="page">
    <h1>Demand paging: the UAPIs side by side</h1>
    <p>
      Proposals for telling a VMM that guest memory is not there yet, the models of what Linux has, and what
      this host’s kernel does, evaluated by one suite of named properties at each site from which guest memory
      is reached.
    </p>
    <dl class="facts">
      ${Object.entries(facts).map(
        ([name, value]) =>
          html`<div>
            <dt>${name}</dt>
            <dd>${value}</dd>
          </div>`,
      )}
    </dl>
    <ul class="totals">
      ${totals.map(([count, what]) => html`<li><b>${count}</b>${what}</li>`)}
    </ul>
    <nav aria-label="Sections">
      <ul>
        ${Object.entries(SECTIONS).map(([id, title]) => html`<li><a href="#${id}">${title}</a></li>`)}
      </ul>
    </nav>
  </header>`;
}

const legend = (
  looks: readonly { readonly look: string; readonly sign: string; readonly means: string }[],
): Markup =>
  html`<ul class="legend">
    ${looks.map(({ look, sign, means }) => html`<li><span class="chip ${look}">${sign}</span> ${means}</li>`)}
  </ul>`;

const readingMarkup = ({ options }: MatrixDocument): Markup =>
  html`<section id="reading">
    <h2>${SECTIONS.reading}</h2>
    <p>
      Models and proposals run on a deterministic kernel model in which every interleaving is chosen: each
      property at each site was given ${options.runs} plans with a schedule each, and a failure was made
      smaller before it was told. What is on this kernel was accessed by real threads and processes,
      ${options.liveRuns} runs a cell; those schedules are the machine’s, and are not made smaller. Each
      target was evaluated in a process of its own: one that does not come back is named, and the rest goes
      on.
    </p>
    <p>
      A property that holds was not broken in these runs, and no more is said. A model is one lock less than a
      kernel everywhere: a step is atomic and memory is sequentially consistent, so an ordering mistake shows
      where it separates two steps, not inside one. Where model and kernel differ, the model is wrong.
    </p>
  </section>`;
