import { describe, expect, test } from 'vitest';
import { type Fails, type Failure } from 'demand-paging/conformance';
import { blocking, type ModelMechanism } from 'demand-paging/backends/memory';
import {
  before,
  defineUapi,
  evaluate,
  throughMapping,
  type Uapi,
  VCPU_SITES,
} from 'demand-paging/prototypes';

const RUNS = 25;

/** A prototype that is sound but for what is changed. */
const prototype = (change: Partial<ModelMechanism>): Uapi<object> =>
  defineUapi({
    name: 'broken',
    source: { title: 'T', author: 'A', date: '2026', reference: 'R', status: 'S' },
    verbs: ['copy', 'zeropage', 'wake'],
    defaults: {},
    kernelSide() {
      const present = new Set<number>();
      const mechanism: ModelMechanism = {
        ...blocking(),
        obstacle: ({ page }) => (present.has(page) ? undefined : 'missing'),
        carryOut(request, kernel) {
          if (request.verb !== 'copy' && request.verb !== 'zeropage') return undefined;
          if (present.has(request.page)) return 17;
          const errno = throughMapping(request, kernel);
          if (errno === 0) present.add(request.page);
          return errno;
        },
        ...change,
      };
      return { sites: before(VCPU_SITES, mechanism), discardedByPager: (page) => void present.delete(page) };
    },
  });

const BAD: readonly { what: string; change: Partial<ModelMechanism>; kinds: readonly Failure['kind'][] }[] = [
  {
    what: 'throws',
    change: {
      obstacle: () => {
        throw new Error('a null pointer');
      },
    },
    kinds: ['thrown'],
  },
  {
    what: 'lies in its manifest',
    change: { stop: (access) => access.fail(14) },
    kinds: ['wrong-effect'],
  },
  {
    what: 'stops an access and delivers no fault',
    change: { stop: (access, kind) => access.block(kind) },
    kinds: ['wrong-effect', 'stuck', 'no-end'],
  },
  {
    what: 'neither stops an access nor lets it go',
    change: { stop: () => {} },
    kinds: ['no-end'],
  },
  {
    what: 'loses what it was given',
    change: { carryOut: () => 0 },
    kinds: ['no-end', 'stuck'],
  },
];

test('what is broken below is sound but for that', { timeout: 60_000 }, async () => {
  const { failed } = await evaluate(prototype({}), {}, { runs: RUNS });
  expect(failed).toEqual(['removed-reads-zero']); // it announces no removals
});

describe('a prototype is named, within a bounded number of steps, that', () => {
  test.each(BAD)('$what', { timeout: 60_000 }, async ({ change, kinds }) => {
    const only = ['coverage-is-true', 'bounded-in-flight', 'views-die-safely'] as const;
    const { failed, results } = await evaluate(prototype(change), {}, { runs: RUNS, only });
    expect(failed).toContain('coverage-is-true');
    const [coverage] = results.filter(({ name }) => name === 'coverage-is-true');
    expect(kinds).toContain((coverage as Fails).failure.kind);
    // And the rest was gone on with.
    expect(results.map(({ name }) => name)).toEqual(expect.arrayContaining([...only]));
  });
});
