import { describe, expect, test } from 'vitest';
import { cellsOf, JUDGED, type JudgedCell } from '../../src/cli/judge/cell.js';
import { judgeCandidate, type Judgement } from '../../src/cli/judge/judgement.js';

const fixture = (name: string): string => new URL(`fixtures/uapis/${name}.mjs`, import.meta.url).pathname;

const ONLY = ['coverage-is-true', 'no-zero-leak', 'bounded-in-flight', 'views-die-safely'];
const CELLS = cellsOf(JUDGED.filter(({ name, part }) => ONLY.includes(name) && part === undefined)).filter(
  ({ site }) => site === undefined || site === 'vcpu-load' || site === 'kernel-copy',
);

const judge = (name: string, answer_ms = 15_000): Promise<Judgement> =>
  judgeCandidate(fixture(name), CELLS, { runs: 15, seed: 1, within_ms: 2000, answer_ms });

const at = ({ cells }: Judgement, property: string, site?: string): JudgedCell['result'] =>
  cells.find((cell) => cell.property === property && cell.site === site)!.result;

describe('a prototype judged in a process of its own', () => {
  test('that is sound holds, and where nobody stands an access is shown that goes through', async () => {
    const judgement = await judge('sound');
    expect(judgement.cells).toHaveLength(CELLS.length);
    expect(judgement.cells.filter(({ result }) => result.verdict === 'fails')).toEqual([]);
    expect(at(judgement, 'coverage-is-true', 'vcpu-load')).toEqual({ verdict: 'holds', runs: 15 });
    expect(at(judgement, 'coverage-is-true', 'kernel-copy').verdict).toBe('holds');
    const witness = at(judgement, 'no-zero-leak', 'kernel-copy');
    expect(witness).toMatchObject({
      verdict: 'unmediated',
      what: expect.stringMatching(/read zeros/) as string,
    });
    const { story } = witness as { readonly story: readonly string[] };
    expect(story.map((line) => line.replace(/^ *\d+ +/, ''))).toEqual([
      'KVM (#1)  reads (kvm_read_guest) page 0',
      'KVM (#1)  has read page 0: zeros',
      'pager     was told nothing of page 0; its contents are still at the source',
    ]);
  });

  test('that deadlocks is named, with what it was at, and the rest is judged', async () => {
    const judgement = await judge('loops', 4000);
    const stuck = judgement.cells.filter(
      ({ result }) => result.verdict === 'fails' && result.what.startsWith('it does not answer'),
    );
    expect(stuck.length).toBeGreaterThan(0);
    expect(judgement.cells).toHaveLength(CELLS.length);
    // The run in which it fell silent was played again, and left its events behind.
    const { story } = stuck[0]!.result as { readonly story: readonly string[] };
    expect(story.at(-1)).toMatch(/vCPU \d \(#\d+\) +is stopped at page \d \(missing\)/);
  });

  test('that throws is named, with where', async () => {
    const judgement = await judge('throws');
    expect(at(judgement, 'coverage-is-true', 'vcpu-load')).toMatchObject({
      verdict: 'fails',
      what: expect.stringMatching(/a null pointer[^]*throws\.mjs:5/) as string,
    });
    expect(at(judgement, 'views-die-safely').verdict).toBe('holds');
  });

  test('that lies in its manifest is named by the property of that', async () => {
    const judgement = await judge('lies');
    expect(at(judgement, 'coverage-is-true', 'vcpu-load')).toMatchObject({
      verdict: 'fails',
      what: "vcpu-load is declared 'blocks', and a missing page there: errors",
    });
    expect(at(judgement, 'views-die-safely').verdict).toBe('holds');
  });

  test('that never answers is given up after a bounded time, and every cell says so', async () => {
    const started = performance.now();
    const judgement = await judge('silent', 2000);
    expect(judgement.cells).toHaveLength(CELLS.length);
    const said = judgement.cells.map(({ result }) =>
      result.verdict === 'fails' ? result.what : result.verdict,
    );
    expect(
      said
        .slice(0, 2)
        .every(
          (what) =>
            what ===
            'it does not answer: it waits for something, and nothing is under way that could bring it',
        ),
    ).toBe(true);
    expect(said.slice(2).every((what) => what.startsWith('not judged: '))).toBe(true);
    // Two cells, each played again, a start of a process each.
    expect(performance.now() - started).toBeLessThan(60_000);
  });

  test('that ends its process is named by how', async () => {
    const judgement = await judge('exits');
    const died = judgement.cells.filter(
      ({ result }) => result.verdict === 'fails' && result.what === 'it ended its process: status 7',
    );
    expect(died.length).toBeGreaterThan(0);
    expect(judgement.cells).toHaveLength(CELLS.length);
  });
});

describe('scenarios are played on a prototype in its process', () => {
  const NAMES = ['its-restore', 'balloon', 'many-vcpus'];
  const play = (name: string): Promise<Judgement> =>
    judgeCandidate(fixture(name), CELLS.slice(0, 1), {
      runs: 5,
      seed: 1,
      within_ms: 1000,
      answer_ms: 3000,
      scenarios: NAMES,
    });

  test('that is sound, each to its end', async () => {
    const { scenarios } = await play('sound');
    expect(scenarios.map(({ scenario, uapi }) => `${scenario} of ${uapi}`)).toEqual(
      NAMES.map((name) => `${name} of fixture`),
    );
    expect(scenarios[0]).toMatchObject({ grade: 'silent' });
    expect(scenarios[0]!.cases.every(({ says }) => says !== '')).toBe(true);
  });

  test('that takes its process along in one of them: that is said, and the others are played or given up', async () => {
    const { cells, scenarios } = await play('exits');
    expect(cells).toHaveLength(1);
    expect(scenarios.map(({ scenario }) => scenario)).toEqual(NAMES);
    expect(scenarios.flatMap(({ cases }) => cases.map(({ says }) => says)).join()).toMatch(
      /it ended its process: status 7/,
    );
  });

  test('that is no prototype: none', async () => {
    const { scenarios } = await judgeCandidate('memory', CELLS.slice(0, 1), {
      runs: 1,
      seed: 1,
      within_ms: 1000,
      scenarios: NAMES,
    });
    expect(scenarios).toEqual([]);
  });
});

describe('what cannot be judged is refused', () => {
  test.each([
    ['nowhere', 'MODULE_NOT_FOUND', /there is no file .*nowhere\.mjs/],
    ['fails-to-load', 'MODULE_FAILED', /not today/],
    ['lacks-an-import', 'MODULE_FAILED', /nowhere\.mjs/],
    ['no-default', 'NOT_A_UAPI', /no default export; it exports uapi/],
    ['no-uapi', 'NOT_A_UAPI', /an object with name/],
  ])('%s: %s', async (name, code, says) => {
    const { refused, cells } = await judge(name);
    expect(refused).toMatchObject({ code, message: expect.stringMatching(says) as string });
    expect(cells).toEqual([]);
  });

  test('a module that never comes back from loading', async () => {
    const { refused } = await judge('never-loads', 2000);
    expect(refused).toMatchObject({
      code: 'MODULE_FAILED',
      message: expect.stringMatching(/for 2 s/) as string,
    });
  });

  test('a name that is none, with those that are', async () => {
    const { refused } = await judgeCandidate('userfautlfd', CELLS, { runs: 1, seed: 1, within_ms: 1 });
    expect(refused).toMatchObject({
      code: 'MODULE_NOT_FOUND',
      hint: expect.stringMatching(/userfaultfd, .*present-bitmap/) as string,
    });
  });
});
