import * as Plot from '@observablehq/plot';
import { parseHTML } from 'linkedom';
import { type MatrixDocument } from '../matrix.js';
import { html, Markup } from './markup.js';

const { document } = parseHTML('<!doctype html><html><body></body></html>');

const COLOURS = [1, 2, 3, 4, 5].map((series) => `var(--series-${series})`);

function drawn(label: string, options: Plot.PlotOptions): Markup {
  const plot = Plot.plot({
    // The library draws into any document; this one needs no browser.
    document: document as unknown as NonNullable<Plot.PlotOptions['document']>,
    ariaLabel: label,
    style: { fontSize: '12px', background: 'none' },
    ...options,
  });
  return html`<div class="plot" tabindex="0" role="region" aria-label="${label}">
    ${new Markup(plot.outerHTML)}
  </div>`;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

const WIDTH = 680;

/** What a missing page costs by site, each access a tick. */
export function latencyPlot({ faults, host }: MatrixDocument): Markup {
  if (faults.length === 0)
    return html`<p class="soft">userfaultfd is unavailable on this host: nothing was measured.</p>`;
  const sites = [...new Set(faults.map(({ site }) => site))];
  const middles = sites.map((site) => {
    const took = faults.filter((fault) => fault.site === site).map(({ took_us }) => took_us);
    return { site, took_us: median(took), worst: Math.max(...took), samples: took.length };
  });
  const plot = drawn('Time of one access to a missing page, by access site, in microseconds', {
    width: WIDTH,
    height: 70 + sites.length * 40,
    marginLeft: 130,
    marginRight: 110,
    marginBottom: 44,
    x: { type: 'log', label: 'one access to a missing page, µs →', grid: true },
    y: { label: null, domain: sites },
    marks: [
      Plot.tickX(faults, { x: 'took_us', y: 'site', stroke: COLOURS[0]!, strokeOpacity: 0.28, inset: 6 }),
      Plot.tickX(middles, { x: 'took_us', y: 'site', stroke: COLOURS[1]!, strokeWidth: 3, inset: 3 }),
      Plot.text(middles, {
        y: 'site',
        text: ({ took_us }: { took_us: number }) => `median ${took_us.toFixed(0)} µs`,
        frameAnchor: 'right',
        textAnchor: 'start',
        dx: 10,
        fill: COLOURS[1]!,
        fontWeight: 600,
      }),
    ],
  });
  return html`<figure>
    <figcaption>
      <h3>What a missing page costs here</h3>
      userfaultfd on ${host.kernel}, ${host.cpus} processors, served by this library’s resolver thread from
      memory; accessors of all sites at once, each on pages of its own. A tick is an access, measured where it
      was made; the orange one is the median.
    </figcaption>
    ${plot}
    <details>
      <summary>As a table</summary>
      <table>
        <thead>
          <tr>
            <th scope="col">site</th>
            <th scope="col">accesses</th>
            <th scope="col">median, µs</th>
            <th scope="col">worst, µs</th>
          </tr>
        </thead>
        <tbody>
          ${middles.map(
            ({ site, samples, took_us, worst }) =>
              html`<tr>
                <th scope="row">${site}</th>
                <td>${samples}</td>
                <td>${took_us.toFixed(1)}</td>
                <td>${worst.toFixed(1)}</td>
              </tr>`,
          )}
        </tbody>
      </table>
    </details>
  </figure>`;
}

/** When each page came, and to whom. */
export function faultPlot({ faults }: MatrixDocument): Markup {
  if (faults.length === 0) return html``;
  const plot = drawn('Pages by the moment at which the access to them was through', {
    width: WIDTH,
    height: 330,
    marginLeft: 50,
    marginBottom: 44,
    color: { legend: true, domain: [...new Set(faults.map(({ site }) => site))], range: COLOURS },
    x: { label: 'since the first access, ms →', grid: true },
    y: { label: '↑ page', grid: true },
    marks: [Plot.dot(faults, { x: 'at_ms', y: 'page', stroke: 'site', r: 1.6 })],
  });
  return html`<figure>
    <figcaption>
      <h3>The faults of that run</h3>
      Each dot is a page, at the moment at which the access to it was through: the steeper, the faster; a gap
      is a time in which that accessor did not run.
    </figcaption>
    ${plot}
  </figure>`;
}

const RATE_TICKS = [10, 30, 100, 300, 1000, 3000, 10_000];

/** Published rates, and what the models say of them. */
export function scalingPlot({ scaling }: MatrixDocument): Markup {
  const points = scaling.flatMap(({ curve, model, points: of }) =>
    of.map((point) => ({ ...point, curve, model, line: `${curve}: ${model}` })),
  );
  const measured = points.filter(
    ({ model, curve }) => scaling.find((fit) => fit.curve === curve)!.model === model,
  );
  const plot = drawn('Pages a second by the number of vCPUs, published and predicted', {
    width: WIDTH,
    height: 360,
    marginLeft: 60,
    marginBottom: 44,
    color: { legend: true, domain: ['userfaultfd', 'exits'], range: [COLOURS[1]!, COLOURS[0]!] },
    x: { type: 'log', base: 2, label: 'vCPUs →', ticks: [1, 2, 4, 8, 16, 64, 128, 256], tickFormat: 'd' },
    y: { type: 'log', label: '↑ thousand pages a second', grid: true, ticks: RATE_TICKS, tickFormat: 'd' },
    marks: [
      ...scaling.map(({ curve, model }, at) =>
        Plot.line(
          points.filter((point) => point.curve === curve && point.model === model),
          {
            x: 'vcpus',
            y: 'predicted',
            stroke: 'curve',
            strokeDasharray: at % 2 === 1 ? '4 4' : '',
            strokeOpacity: 0.75,
          },
        ),
      ),
      Plot.dot(measured, { x: 'vcpus', y: 'measured', fill: 'curve', r: 4 }),
    ],
  });
  return html`<figure>
    <figcaption>
      <h3>One queue, or an exit each</h3>
      Dots: rates published with exit on missing (<code>demand_paging_test</code>, 256-core x86). Solid:
      ${scaling
        .filter((_, at) => at % 2 === 0)
        .map(({ curve, model }) => `${curve}, ${model}`)
        .join('; ')}.
      Dashed:
      ${scaling
        .filter((_, at) => at % 2 === 1)
        .map(({ curve, model }) => `${curve}, ${model}`)
        .join('; ')}.
      Each is fitted on two or three of the points and says the others.
    </figcaption>
    ${plot}
    <details>
      <summary>As a table</summary>
      <table>
        <thead>
          <tr>
            <th scope="col">curve and model</th>
            <th scope="col">vCPUs</th>
            <th scope="col">published</th>
            <th scope="col">model</th>
            <th scope="col">error</th>
          </tr>
        </thead>
        <tbody>
          ${points.map(
            ({ line, vcpus, measured: rate, predicted, fitted }) =>
              html`<tr>
                <th scope="row">${line}</th>
                <td>${vcpus}</td>
                <td>${rate}</td>
                <td>${predicted.toFixed(0)}</td>
                <td>${fitted ? 'fitted' : `${(((predicted - rate) / rate) * 100).toFixed(0)} %`}</td>
              </tr>`,
          )}
        </tbody>
      </table>
    </details>
  </figure>`;
}
