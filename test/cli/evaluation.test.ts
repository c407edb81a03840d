import { describe, expect, test } from 'vitest';
import { type CellResult, cellsOf, ALL_PROPERTIES } from '../../src/cli/evaluation/cell.js';
import { type Failure } from 'demand-paging/conformance';
import { caseText } from 'demand-paging/scenarios';
import { evaluateTarget, type Evaluation } from '../../src/cli/evaluation/evaluation.js';

const fixture = (name: string): string => new URL(`fixtures/uapis/${name}.mjs`, import.meta.url).pathname;

const ONLY = ['coverage-is-true', 'no-zero-leak', 'bounded-in-flight', 'views-die-safely'];
const CELLS = cellsOf(
  ALL_PROPERTIES.filter(({ name, part }) => ONLY.includes(name) && part === undefined),
).filter(({ site }) => site === undefined || site === 'vcpu-load' || site === 'kernel-copy');

const evaluate = (name: string, answer_ms = 15_000): Promise<Evaluation> =>
  evaluateTarget(fixture(name), CELLS, { runs: 15, seed: 1, within_ms: 2000, answer_ms });

const at = ({ cells }: Evaluation, property: string, site?: string): CellResult =>
  cells.find((cell) => cell.property === property && cell.site === site)!;

describe('a prototype evaluated in a process of its own', () => {
  test('that is sound holds, and where it is not intercepted an access is shown that goes through', async () => {
    const evaluation = await evaluate('sound');
    expect(evaluation.cells).toHaveLength(CELLS.length);
    expect(evaluation.cells.filter(({ outcome }) => outcome === 'fails')).toEqual([]);
    expect(at(evaluation, 'coverage-is-true', 'vcpu-load')).toMatchObject({ outcome: 'holds', runs: 15 });
    expect(at(evaluation, 'coverage-is-true', 'kernel-copy').outcome).toBe('holds');
    const witness = at(evaluation, 'no-zero-leak', 'kernel-copy');
    const actor = { kind: 'accessor', site: 'kernel-copy', number: 1 };
    expect(witness).toMatchObject({
      outcome: 'unmediated',
      failure: { kind: 'not-noticed', access: { accessor: actor, page: 0 }, seen: 'zeros' },
      trace: [
        { actor, kind: 'access-starts', write: false, page: 0 },
        { actor, kind: 'access-ends', end: 'done', seen: 'zeros', page: 0 },
        { actor: { kind: 'resolver' }, kind: 'fault-missed', page: 0 },
      ],
    });
  });

  test('that deadlocks is named, with what it was at, and the rest is evaluated', async () => {
    const evaluation = await evaluate('loops', 4000);
    const stuck = evaluation.cells.filter(
      (result) => result.outcome === 'fails' && result.failure.kind === 'no-answer',
    );
    expect(stuck.length).toBeGreaterThan(0);
    expect(evaluation.cells).toHaveLength(CELLS.length);
    // The run in which it fell silent was repeated, and left its events behind.
    const { trace } = stuck[0] as Extract<CellResult, { trace: unknown }>;
    expect(trace.at(-1)).toMatchObject({
      actor: { kind: 'accessor', site: 'vcpu-load' },
      kind: 'stopped-at',
      fault: 'missing',
    });
  });

  test('that throws is named, with where', async () => {
    const evaluation = await evaluate('throws');
    expect(at(evaluation, 'coverage-is-true', 'vcpu-load')).toMatchObject({
      outcome: 'fails',
      failure: { kind: 'thrown', error: expect.stringMatching(/a null pointer[^]*throws\.mjs:5/) as string },
    });
    expect(at(evaluation, 'views-die-safely').outcome).toBe('holds');
  });

  test('that throws at length: every cell has all of its text', async () => {
    const { cells } = await evaluate('throws-at-length');
    expect(cells).toHaveLength(CELLS.length);
    for (const cell of cells) {
      const { error } = (cell as { readonly failure: Extract<Failure, { kind: 'thrown' }> }).failure;
      expect(error.length).toBeGreaterThan(1_200_000);
    }
  });

  test('that lies in its manifest is named by the property of that', async () => {
    const evaluation = await evaluate('lies');
    expect(at(evaluation, 'coverage-is-true', 'vcpu-load')).toMatchObject({
      outcome: 'fails',
      failure: { kind: 'wrong-effect', site: 'vcpu-load', declared: 'blocks', seen: 'errors' },
    });
    expect(at(evaluation, 'views-die-safely').outcome).toBe('holds');
  });

  test('that never answers is given up after a bounded time, and every cell says so', async () => {
    const started = performance.now();
    const evaluation = await evaluate('silent', 2000);
    expect(evaluation.cells).toHaveLength(CELLS.length);
    const kinds = evaluation.cells.map((result) => result.outcome === 'fails' && result.failure.kind);
    expect(kinds.slice(0, 2)).toEqual(['idle', 'idle']);
    expect(new Set(kinds.slice(2))).toEqual(new Set(['not-evaluated']));
    // Two cells, each repeated, a start of a process each.
    expect(performance.now() - started).toBeLessThan(60_000);
  });

  test('that ends its process is named by how', async () => {
    const evaluation = await evaluate('exits');
    const died = evaluation.cells.filter(
      (result) => result.outcome === 'fails' && result.failure.kind === 'process-ended',
    );
    expect(died.length).toBeGreaterThan(0);
    expect(died[0]).toMatchObject({ failure: { how: 'status 7' } });
    expect(evaluation.cells).toHaveLength(CELLS.length);
  });
});

describe('scenarios are run on a prototype in its process', () => {
  const NAMES = ['its-restore', 'balloon', 'many-vcpus'];
  const scenariosOf = (name: string): Promise<Evaluation> =>
    evaluateTarget(fixture(name), CELLS.slice(0, 1), {
      runs: 5,
      seed: 1,
      within_ms: 1000,
      answer_ms: 3000,
      scenarios: NAMES,
    });

  test('that is sound, each to its end', async () => {
    const { scenarios } = await scenariosOf('sound');
    expect(scenarios.map(({ scenario, uapi }) => `${scenario} of ${uapi}`)).toEqual(
      NAMES.map((name) => `${name} of fixture`),
    );
    expect(scenarios[0]).toMatchObject({ outcome: 'silent' });
    const cases = scenarios.flatMap((result) => result.cases);
    expect(cases.filter((result) => result.seen.kind === 'process' || caseText(result) === '')).toEqual([]);
  });

  test('that takes its process along in one of them: that is said, and the others are run or given up', async () => {
    const { cells, scenarios } = await scenariosOf('exits');
    expect(cells).toHaveLength(1);
    expect(scenarios.map(({ scenario }) => scenario)).toEqual(NAMES);
    expect(scenarios.flatMap(({ cases }) => cases.map(({ seen }) => seen))).toContainEqual({
      kind: 'process',
      failure: { kind: 'process-ended', how: 'status 7' },
    });
  });

  test('that is no prototype: none', async () => {
    const { scenarios } = await evaluateTarget('memory', CELLS.slice(0, 1), {
      runs: 1,
      seed: 1,
      within_ms: 1000,
      scenarios: NAMES,
    });
    expect(scenarios).toEqual([]);
  });
});

describe('what cannot be evaluated is refused', () => {
  test.each([
    ['nowhere', 'MODULE_NOT_FOUND', /there is no file .*nowhere\.mjs/],
    ['fails-to-load', 'MODULE_FAILED', /not today/],
    ['lacks-an-import', 'MODULE_FAILED', /nowhere\.mjs/],
    ['no-default', 'NOT_A_UAPI', /no default export; it exports uapi/],
    ['no-uapi', 'NOT_A_UAPI', /an object with name/],
  ])('%s: %s', async (name, code, says) => {
    const { refused, cells } = await evaluate(name);
    expect(refused).toMatchObject({ code, message: expect.stringMatching(says) as string });
    expect(cells).toEqual([]);
  });

  test('a module that never comes back from loading', async () => {
    const { refused } = await evaluate('never-loads', 2000);
    expect(refused).toMatchObject({
      code: 'MODULE_FAILED',
      message: expect.stringMatching(/for 2 s/) as string,
    });
  });

  test('a name that is none, with those that are', async () => {
    const { refused } = await evaluateTarget('userfautlfd', CELLS, { runs: 1, seed: 1, within_ms: 1 });
    expect(refused).toMatchObject({
      code: 'MODULE_NOT_FOUND',
      hint: expect.stringMatching(/userfaultfd, .*present-bitmap/) as string,
    });
  });
});
