import { parseHTML } from 'linkedom';
import { formatTrace } from 'demand-paging/conformance';
import { formatScenarioTrace } from 'demand-paging/scenarios';
import { beforeAll, describe, expect, test } from 'vitest';
import { type MatrixDocument, makeMatrix } from '../../src/cli/evaluation/matrix.js';
import { textOf } from '../../src/cli/evaluation/page/hazard-list.js';
import { matrixPage } from '../../src/cli/evaluation/page/matrix-page.js';

const broken = new URL('fixtures/uapis/lies.mjs', import.meta.url).pathname;
const gone = new URL('fixtures/uapis/no-default.mjs', import.meta.url).pathname;

let data: MatrixDocument;
let page: string;
let document: ReturnType<typeof parseHTML>['document'];

beforeAll(async () => {
  data = await makeMatrix({
    runs: 3,
    liveRuns: 1,
    seed: 1,
    modules: [broken, gone],
    only: ['model-userfaultfd', 'kvm-userfault'],
    hear: () => {},
  });
  // As it is written and read again.
  data = JSON.parse(JSON.stringify(data)) as MatrixDocument;
  page = matrixPage(data);
  ({ document } = parseHTML(page));
});

const squeezed = (text: string | null | undefined): string => (text ?? '').replaceAll(/\s+/g, ' ').trim();

describe('the page of the matrix', () => {
  test('refers to nothing outside itself, and runs nothing', () => {
    const references = [...document.querySelectorAll('[src], [href], [srcset], [data]')].flatMap((element) =>
      ['src', 'href', 'srcset', 'data'].flatMap((name) => element.getAttribute(name) ?? []),
    );
    expect(references.length).toBeGreaterThan(3);
    expect(references.filter((reference) => !/^(#|data:)/.test(reference))).toEqual([]);
    expect(document.querySelectorAll('script, link[rel=stylesheet], iframe, object, img')).toHaveLength(0);
    expect(page).not.toMatch(/@import|url\(|\bon[a-z]+="/);
  });

  test('has a cell, which opens, for every result in the data', () => {
    for (const row of data.rows.filter(({ cells }) => cells.length > 0)) {
      const name = row.facts!.name;
      for (const { site } of data.sites) {
        const button = document.querySelector(`button[aria-label^="${name} at ${site}: "]`);
        expect(button, `${name} at ${site}`).not.toBeNull();
        expect(document.getElementById(button!.getAttribute('popovertarget')!)).not.toBeNull();
      }
      for (const { property } of data.properties) {
        const button = document.querySelector(`button[aria-label^="${name}, ${property}: "]`);
        const opened = document.getElementById(button?.getAttribute('popovertarget') ?? '');
        expect(opened, `${name}, ${property}`).not.toBeNull();
        for (const { outcome } of row.cells.filter((cell) => cell.property === property))
          expect(squeezed(opened!.textContent)).toContain(outcome.replace('-', ' '));
      }
    }
  });

  test('tells every counterexample that there is', () => {
    const traces = new Set([...document.querySelectorAll('pre.trace')].map(({ textContent }) => textContent));
    const told = data.rows.flatMap(({ cells }) =>
      cells.flatMap((result) =>
        result.outcome === 'unmediated' && result.failure ? [formatTrace(result.trace).join('\n')] : [],
      ),
    );
    expect(told.length).toBeGreaterThan(5);
    for (const trace of told) expect(traces).toContain(trace);
    const text = squeezed(document.body.textContent);
    expect(text).toContain("vcpu-load is declared 'blocks', and a missing page there: errors");
    for (const { has } of data.hazards)
      for (const { result } of has) {
        expect(text).toContain(squeezed(textOf(result)));
        if ('case' in result) expect(traces).toContain(formatScenarioTrace(result.trace).join('\n'));
        else if ('trace' in result && result.trace.length > 0)
          expect(traces).toContain(formatTrace(result.trace).join('\n'));
      }
  });

  test('names every hazard with who has it, every scenario, and who could not be evaluated', () => {
    for (const { name, title, has } of data.hazards) {
      const item = document.getElementById(`hazard-${name}`)!;
      expect(squeezed(item.querySelector('h3')!.textContent)).toBe(squeezed(title));
      expect([...item.querySelectorAll('button')].map(({ textContent }) => squeezed(textContent))).toEqual(
        has.map(({ target }) => target),
      );
    }
    for (const { name } of data.scenarios)
      expect(document.querySelector('#scenarios table')!.textContent).toContain(name);
    expect(squeezed(document.body.textContent)).toContain('has no default export; it exports uapi');
  });

  test('is in the language of assistive technology: headings, heads of rows and columns, labels', () => {
    expect(document.documentElement.getAttribute('lang')).toBe('en');
    expect(document.querySelectorAll('h1')).toHaveLength(1);
    for (const table of document.querySelectorAll('.scroll table')) {
      expect(table.querySelectorAll('thead th[scope=col]').length).toBeGreaterThan(3);
      expect(table.querySelectorAll('tbody th[scope=row]').length).toBeGreaterThan(0);
    }
    const ids = [...document.querySelectorAll('[id]')].map(({ id }) => id);
    expect(new Set(ids).size).toBe(ids.length);
    for (const svg of document.querySelectorAll('.plot > svg, .plot > figure > svg:last-of-type'))
      expect(svg.getAttribute('aria-label') ?? svg.parentElement!.closest('[aria-label]')).toBeTruthy();
  });
});
