import { describe, expect, test } from 'vitest';
import { gpa, type Pager } from '../../../src/api/index.js';
import { type KvmBackend } from '../../../src/kvm/index.js';
import { hasTwoStagePaging } from '../../../src/linux/index.js';
import {
  backendOf,
  type Doing,
  ENTRY,
  type Flavour,
  imageOf,
  LOW,
  memoryOf,
  PAGE,
  PAGED,
  PAGED_PAGE,
  pagerOver,
  PORT,
  Rig,
  type RunResult,
} from './rig.js';

const PAGES = 40;
const DATA_PAGES = PAGES - PAGED_PAGE.data;
const VCPUS = 2;

/** A small generator of numbers below `limit`, the same for the same seed. */
function numbers(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * limit);
  };
}

/** Discards present pages, one after another, while guests run; they come back as the guests touch them. */
async function hammer(
  pager: Pager,
  pages: readonly number[],
  times: number,
  seed: number,
  over = () => false,
): Promise<void> {
  const next = numbers(seed);
  for (let done = 0; done < times && !over();) {
    const page = pages[next(pages.length)]!;
    if (pager.states.isPresent(page)) {
      await pager.discard([{ start: gpa(PAGED + page * PAGE), length: BigInt(PAGE) }], { then: 'refetch' });
      done++;
    } else await new Promise((resolve) => setImmediate(resolve));
  }
}

/** Guests that check code, data, atomics and page tables without end, until told to stop. */
function startHammers(rig: Rig, backend: KvmBackend, tables: 'paged' | 'low'): Promise<Doing<RunResult>[]> {
  return Promise.all(
    Array.from({ length: VCPUS }, (_, index) => {
      const registers = {
        rdi: BigInt(PAGED + PAGED_PAGE.data * PAGE),
        rsi: BigInt(DATA_PAGES),
        rsp: BigInt(PAGED + (PAGED_PAGE.stacks + index + 1) * PAGE),
        r10: BigInt(PAGED + PAGED_PAGE.counter * PAGE),
        r9: 0n,
      };
      const from = { code: PAGED + PAGED_PAGE.code * PAGE, tables: tables === 'paged' ? PAGED : LOW.tables };
      return rig.run(rig.vcpu(ENTRY.hammer, registers, from), backend.exitHandlerToken(index));
    }),
  );
}

describe('memslot-update-is-invisible, no-guest-visible-injection: updates under running vCPUs: no guest-visible effect', () => {
  const CASES: readonly { flavour: Flavour; tables: 'paged' | 'low' }[] = [
    { flavour: 'kvm-exit', tables: 'low' },
    { flavour: 'composite', tables: 'paged' },
    { flavour: 'guest-memfd', tables: 'paged' },
  ];
  const TIMES = 500;
  const SEED = 20_231_107;

  test.for(CASES)(
    '$flavour: code, data, atomics, page tables $tables',
    async ({ flavour, tables }, context) => {
      using rig = Rig.open(context);
      const begun = performance.now();
      const backend = backendOf(flavour, { vm: rig.vm.fd, vcpus: VCPUS });
      const { pager } = await pagerOver(
        backend,
        [rig.region(PAGES, PAGE, memoryOf(flavour))],
        imageOf(PAGES),
      );
      const runs = await startHammers(rig, backend, tables);
      const fixed = Array.from({ length: DATA_PAGES }, (_, page) => PAGED_PAGE.data + page);
      const special = tables === 'paged' ? [0, 1, 2, PAGED_PAGE.code] : [PAGED_PAGE.code];
      // What is special is as likely as all the data together.
      const pages = [...fixed, ...fixed.flatMap((_, i) => special[i % special.length]!)];
      await hammer(pager, pages, TIMES, SEED);
      rig.stopGuests();
      let rounds = 0n;
      for (const { result } of runs) {
        const { r9, ...end } = await result;
        expect(end, `seed ${SEED}`).toMatchObject({
          handled: 'unhandled',
          errno: 0,
          exit: { kind: 'io', port: PORT.done },
        });
        rounds += r9;
      }
      expect(rounds).toBeGreaterThan(0n);
      const counter = await pager.memory!.read(gpa(PAGED + PAGED_PAGE.counter * PAGE), 8);
      expect(new DataView(counter.buffer).getBigUint64(0, true)).toBe(rounds * BigInt(DATA_PAGES));
      expect(pager.statistics()).toMatchObject({
        refetchPages: TIMES,
        vanishedPages: 0,
        sourceFailures: 0,
      });
      const { updates, paused_ns, longestPause_ns } = backend.memslotUpdates;
      expect(updates).toBeGreaterThanOrEqual(TIMES);
      expect(longestPause_ns).toBeGreaterThan(0);
      expect(paused_ns).toBeGreaterThan(longestPause_ns);
      expect(paused_ns).toBeLessThan((performance.now() - begun) * 1e6);
      await pager.close({ missing: 'leave' });
    },
  );
});

test('the hook does not pause the vCPUs: the guest finds the hole', async (context) => {
  using rig = Rig.open(context);
  const module = new URL('./fixtures/hooks.mjs', import.meta.url).href;
  const hooks = { module, export: 'careless', options: undefined };
  const backend = backendOf('composite', { vm: rig.vm.fd, vcpus: VCPUS, hooks });
  const { pager } = await pagerOver(backend, [rig.region(PAGES, PAGE)], imageOf(PAGES));
  const runs = await startHammers(rig, backend, 'paged');
  const ends = runs.map(({ result }) => result);
  let over = 0;
  for (const end of ends) void end.then(() => over++);
  await hammer(pager, [PAGED_PAGE.code, PAGED_PAGE.data], 20_000, 1, () => over > 0);
  expect(over, 'no vCPU noticed').toBeGreaterThan(0);
  rig.stopGuests();
  const kinds = (await Promise.all(ends)).map(({ exit, handled }) => `${handled} ${exit.kind}`);
  expect(kinds.join(), kinds.join()).toMatch(/shutdown|internal-error|mmio/);
  await pager.close({ missing: 'leave' });
});

test('page walks are not intercepted: the guest takes a fault that it did not cause', async (context) => {
  using rig = Rig.open(context);
  if (hasTwoStagePaging()) context.skip("the processor walks the guest's page tables here: that exits");
  const backend = backendOf('kvm-exit', { vm: rig.vm.fd, vcpus: VCPUS });
  const { pager } = await pagerOver(backend, [rig.region(PAGES, PAGE)], imageOf(PAGES));
  const runs = await startHammers(rig, backend, 'paged');
  for (const { result } of runs)
    expect(await result).toMatchObject({ handled: 'unhandled', exit: { kind: 'shutdown' } });
  await pager.close({ missing: 'leave' });
});
