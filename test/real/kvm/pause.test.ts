import { describe, expect, test } from 'vitest';
import { type DemandPagingError, gpa, type GpaRange, openPager, type Pager } from '../../../src/api/index.js';
import { type KvmBackend, openVcpuExitHandler } from '../../../src/kvm/index.js';
import { HeldSource } from './held-source.js';
import {
  backendOf,
  type Flavour,
  type Doing,
  ENTRY,
  imageOf,
  LOW,
  memoryOf,
  PAGE,
  PAGED,
  pagerOver,
  Rig,
} from './rig.js';

const PAGES = 16;
const LINEAR = 0x5000n;
/** Of the page tables, which KVM reads for the VMM. */
const TABLES = 3;
const FLAVOURS = ['composite', 'guest-memfd'] as const;

const range = (page: number, count = 1): GpaRange[] => [
  { start: gpa(PAGED + page * PAGE), length: BigInt(count * PAGE) },
];

interface Walk {
  readonly valid: boolean;
  readonly times: number;
}

/** KVM walks page tables in the paged memory, again and again until told to stop. */
const walkTables = (
  rig: Rig,
  token: Parameters<Rig['run']>[1],
  stop: Int32Array | undefined,
): Promise<Doing<Walk>> =>
  rig.start<Walk>(
    { kind: 'translate', linear: LINEAR, stop },
    rig.vcpu(ENTRY.done, {}, { code: LOW.code, tables: PAGED }),
    token,
  );

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve));
}

const held = (pager: Pager, count: number) => until(() => pager.statistics().heldFaults >= count);

/** A pager over pages that are all missing, on a backend for the VM of `rig`. */
async function open(
  rig: Rig,
  flavour: Flavour,
  vcpus: number,
): Promise<{ backend: KvmBackend; pager: Pager }> {
  const backend = backendOf(flavour, { vm: rig.vm.fd, vcpus });
  const { pager } = await pagerOver(backend, [rig.region(PAGES, PAGE, memoryOf(flavour))], imageOf(PAGES));
  return { backend, pager };
}

describe.for(FLAVOURS)(
  "%s: KVM's own accesses and memslot updates: do not wait for each other",
  (flavour) => {
    test('concurrent discards of the same pages: all complete', async (context) => {
      using rig = Rig.open(context);
      const { backend, pager } = await open(rig, flavour, 1);
      const stop = new Int32Array(new SharedArrayBuffer(4));
      const walk = await walkTables(rig, backend.exitHandlerToken(0), stop);
      for (let time = 0; time < 20; time++) {
        const pages = [range(0, 2), range(0, TABLES), range(1), range(0), range(1, 2)];
        await Promise.all(pages.map((some) => pager.discard(some, { then: 'refetch' })));
      }
      Atomics.store(stop, 0, 1);
      const { valid, times } = await walk.result;
      expect(valid).toBe(true);
      expect(times).toBeGreaterThan(0);
      await pager.close({ missing: 'leave' });
    });

    test('the thread that pauses the vCPUs enters: DEADLOCK', async (context) => {
      using rig = Rig.open(context);
      const { backend, pager } = await open(rig, flavour, 1);
      await pager.ensure(range(0));
      const handler = openVcpuExitHandler(backend.exitHandlerToken(0));
      expect(handler.during(() => 'entered')).toBe('entered');
      let discarded = false;
      const discarding = pager.discard(range(0), { then: 'refetch' }).finally(() => (discarded = true));
      let code: unknown;
      while (!discarded && code === undefined) {
        await new Promise((resolve) => setImmediate(resolve));
        try {
          handler.during(() => {});
        } catch (error) {
          ({ code } = error as DemandPagingError);
        }
      }
      expect(code).toBe('DEADLOCK');
      await discarding;
      expect(handler.during(() => 'entered')).toBe('entered');
      handler.close();
      await pager.close({ missing: 'leave' });
    });

    test('freeze and discard while a vCPU waits for a frozen page: complete after thaw or close', async (context) => {
      for (const end of ['thaw', 'zero', 'poison'] as const) {
        using rig = Rig.open(context);
        const { backend, pager } = await open(rig, flavour, 1);
        await pager.freeze(range(0));
        const walk = await walkTables(rig, backend.exitHandlerToken(0), undefined);
        await held(pager, 1);
        // The vCPU waits inside the kernel for a page that does not come: these wait for it.
        let over = 0;
        const changes = [
          pager.freeze(range(0, TABLES)),
          pager.discard(range(1), { then: 'refetch' }),
          pager.freeze(range(1)),
          pager.discard(range(0), { then: 'refetch' }),
        ];
        // A page that has come by then cannot be frozen by every backend, and a pager that closes begins
        // nothing.
        const ends = changes.map(async (change) => {
          const end = await change.then(
            () => 'done',
            (error: DemandPagingError) => error.code,
          );
          over++;
          expect(['done', 'NOT_SUPPORTED', 'CLOSED']).toContain(end);
        });
        await pager.ensure(range(8)); // the others are served meanwhile
        expect(over).toBe(0);
        if (end !== 'thaw') {
          await pager.close({ missing: end });
          await Promise.all(ends);
          await walk.result;
          continue;
        }
        await pager.thaw(range(0, TABLES));
        await Promise.all(ends);
        expect((await walk.result).valid).toBe(true);
        expect(pager.states.any('frozen', { first: 0, count: PAGES })).toBe(false);
        await pager.close({ missing: 'leave' });
      }
    });

    test('close while a vCPU waits for a page next to a present one: completes', async (context) => {
      for (const missing of ['leave', 'poison'] as const) {
        using rig = Rig.open(context);
        const backend = backendOf(flavour, { vm: rig.vm.fd, vcpus: 1 });
        const source = new HeldSource(imageOf(PAGES));
        const pager = await openPager({
          backend,
          regions: [rig.region(PAGES, PAGE, memoryOf(flavour))],
          source: source.ref,
          needs: ['vcpu', 'kernel'],
          policy: { faultAroundPages: 1 },
        });
        const asked = source.hold(0);
        await pager.ensure(range(8));
        const walk = await walkTables(rig, backend.exitHandlerToken(0), undefined);
        await asked;
        await pager.close({ missing });
        expect((await walk.result).valid).toBe(false);
        source.close();
      }
    });

    test('close while a vCPU waits for a present, frozen page: completes', async (context) => {
      using rig = Rig.open(context);
      const { backend, pager } = await open(rig, flavour, 1);
      if (pager.supports.freeze !== 'full') return pager.close();
      await pager.ensure(range(0, 8));
      await pager.freeze(range(0));
      const walk = await walkTables(rig, backend.exitHandlerToken(0), undefined);
      await held(pager, 1);
      await pager.close();
      // Whether it found the page before the memory went is chance; that it went on is not.
      await walk.result;
    });

    test('thaw of pages that are being frozen: every page can be accessed', async (context) => {
      using rig = Rig.open(context);
      const { backend, pager } = await open(rig, flavour, 2);
      if (pager.supports.freeze !== 'full') return pager.close();
      await pager.ensure(range(0, PAGES));
      for (let time = 0; time < 200; time++) {
        const freezing = pager.freeze(range(time % 8, 4));
        await Promise.all([pager.thaw(range(time % 8, 4)), freezing]);
      }
      const walk = await walkTables(rig, backend.exitHandlerToken(0), undefined);
      expect((await walk.result).valid).toBe(true);
      // An accessor in between finds a page that a late freeze has unmapped.
      const stop = new Int32Array(new SharedArrayBuffer(4));
      const walks = await walkTables(rig, backend.exitHandlerToken(1), stop);
      for (let time = 0; time < 50; time++) {
        const freezing = pager.freeze(range(0, TABLES));
        await Promise.all([pager.thaw(range(0, TABLES)), freezing]);
      }
      Atomics.store(stop, 0, 1);
      expect((await walks.result).valid).toBe(true);
      expect(pager.statistics().vanishedPages).toBe(0);
      await pager.close();
    });
  },
);
