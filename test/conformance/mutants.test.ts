import { describe, expect, test } from 'vitest';
import {
  checkProperties,
  checkProperty,
  type Fails,
  failsText,
  type Failure,
  FAILURE_KINDS,
  PROPERTIES,
  type PropertyResult,
} from 'demand-paging/conformance';
import { KIND_MUTANTS } from './mutants/kinds.js';
import { type Mutant } from './mutants/mutant.js';
import {
  doubleCopy,
  clampsInput,
  freezeDrops,
  poisonForgotten,
  poisonOutlastsPage,
  presentTooEarly,
  protectsLate,
  tornPage,
  zeroLeak,
  zerosSpread,
  zerosUnheard,
} from './mutants/contents.js';
import {
  deathUnseen,
  failsSilently,
  failureTurnedToZeros,
  unboundedInFlight,
  viewsLive,
} from './mutants/endings.js';
import {
  coverageTooModest,
  coverageTooProud,
  kernelDoesNotWait,
  kernelNeverRecovers,
  verbTooModest,
  verbTooProud,
} from './mutants/manifest.js';
import {
  againSwallowed,
  droppedRemove,
  removeBehindFault,
  resurrects,
  signedAgain,
} from './mutants/removal.js';
import { closeLeavesWaiters, deathIsTheEnd, existsWakesNoWaiter, lostWake } from './mutants/waking.js';

const MUTANTS: readonly Mutant[] = [
  lostWake,
  existsWakesNoWaiter,
  doubleCopy,
  tornPage,
  zeroLeak,
  presentTooEarly,
  droppedRemove,
  removeBehindFault,
  againSwallowed,
  signedAgain,
  resurrects,
  closeLeavesWaiters,
  coverageTooProud,
  coverageTooModest,
  verbTooModest,
  verbTooProud,
  clampsInput,
  failureTurnedToZeros,
  failsSilently,
  deathUnseen,
  unboundedInFlight,
  poisonForgotten,
  poisonOutlastsPage,
  protectsLate,
  freezeDrops,
  kernelDoesNotWait,
  kernelNeverRecovers,
  deathIsTheEnd,
  viewsLive,
  zerosSpread,
  zerosUnheard,
];

const kindsOf = (results: readonly PropertyResult[]): readonly Failure['kind'][] =>
  results.flatMap((result) => (result.outcome === 'fails' ? [result.failure.kind] : []));

/** Kinds of failure that no mutant of the model produces, and what does. */
const BY_NO_MUTANT: Partial<Readonly<Record<Failure['kind'], string>>> = {
  'not-noticed': 'unnoticedAccess, no property of the suite: test/cli/evaluation.test.ts',
  'timed-out': 'a subject on a real kernel: on the model it is stuck',
  'close-stuck': 'a subject on a real kernel: on the model closing ends',
  'no-answer': 'the process that evaluates a target: test/cli/evaluation.test.ts',
  idle: 'the process that evaluates a target: test/cli/evaluation.test.ts',
  'process-ended': 'the process that evaluates a target: test/cli/evaluation.test.ts',
  'not-evaluated': 'the process that evaluates a target: test/cli/evaluation.test.ts',
};

/** The same plans and schedules every time: what fails here fails always. */
const SEED = 20231107;
const RUNS = 200;

describe('a backend with one fault', () => {
  test.each(MUTANTS)('$name: fails $breaks, kind $kind', async ({ subject, breaks, kind, mayBreak = [] }) => {
    const results = await checkProperties(PROPERTIES, subject, {
      runs: RUNS,
      seed: SEED,
      nudge: true,
      shrink: false,
    });
    const failed = new Set(results.filter(({ outcome }) => outcome === 'fails').map(({ name }) => name));
    expect(failed).toContain(breaks);
    const surprises = [...failed].filter((name) => name !== breaks && !mayBreak.includes(name));
    expect(surprises).toEqual([]);
    expect(kindsOf(results.filter(({ name }) => name === breaks))).toContain(kind);
  });

  test.each(KIND_MUTANTS)('$name: $breaks fails, kind $kind', async ({ subject, breaks, kind }) => {
    const broken = PROPERTIES.filter(({ name, part }) => name === breaks && part === undefined);
    const results = await checkProperties(broken, subject, { runs: RUNS, seed: SEED, shrink: false });
    expect(kindsOf(results)).toEqual([kind]);
  });

  test('a failure prints how to repeat it, and its trace', async () => {
    const property = PROPERTIES.find(({ name }) => name === 'no-lost-wake')!;
    const first = await checkProperty(property, lostWake.subject, { runs: RUNS, seed: SEED });
    const { failure, trace, replay } = first as Fails;
    const { seed, path } = replay!;
    const text = failsText(first as Fails);
    expect(text).toContain(`seed ${seed}, path '${path}'`);
    expect(text).toMatch(/trace:\n(.*\n)*\s+\d+ {2}vCPU \d+ \(#\d+\)\s+waits for page \d/);
    const again = await checkProperty(property, lostWake.subject, { runs: 1, seed, path });
    expect(again).toMatchObject({
      outcome: 'fails',
      runs: 1,
      failure,
      trace,
      replay: { plan: replay!.plan },
    });
  });

  test('every property is broken by a mutant', () => {
    const broken = new Set(MUTANTS.map(({ breaks }) => breaks));
    expect(PROPERTIES.map(({ name }) => name).filter((name) => !broken.has(name))).toEqual([]);
  });

  test('every kind of failure is produced by a mutant, or what else produces it is said', () => {
    const produced = new Set([...MUTANTS, ...KIND_MUTANTS].map(({ kind }) => kind));
    const without = FAILURE_KINDS.filter((kind) => !produced.has(kind));
    expect(without.sort()).toEqual(Object.keys(BY_NO_MUTANT).sort());
  });
});
