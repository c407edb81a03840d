import { spawn } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { DemandPagingError, gpa, openPager, type Pager } from '../../../src/api/index.js';
import { SlotVerification } from '../../../src/kvm/slot-verification.js';
import {
  closeDescriptor,
  duplicate,
  GUEST_MEMFD_SHARED,
  hugePagePool,
  installKickSignal,
  kickThread,
  KVM_CAP,
  KvmVm,
  loadWord,
  mapMemory,
  pageSize,
  residentPages,
  setCloseOnExec,
} from '../../../src/linux/index.js';
import { HeldSource } from './held-source.js';
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

const PAGES = 32;
const COUNT = PAGES - PAGED_PAGE.data;
const at = (index: number): number => PAGED + (PAGED_PAGE.data + index) * PAGE;
const range = (index: number, count = 1) => [{ start: gpa(at(index)), length: BigInt(count * PAGE) }];
const SUM = Array.from({ length: COUNT }, (_, page) => BigInt(at(page))).reduce((a, b) => a + b);
const FLAVOURS: readonly Flavour[] = ['kvm-exit', 'composite', 'guest-memfd'];
/** Fewer than the library leaves to others, and more than the heap, the threads and the test take. */
const LEFT_MAPPINGS = 2000;
const LONG = process.env['DEMAND_PAGING_LONG'] === '1';

const code = async (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => 'nothing thrown',
    (error: unknown) => (error instanceof DemandPagingError ? error.code : error),
  );

const stoppedOf = (pager: Pager): Promise<DemandPagingError> =>
  new Promise((resolve) => pager.once('stopped', resolve));

/** Nothing of the backend's is left in the guest's memory. */
const expectFree = (rig: Rig): void =>
  rig.vm.setSlot({ slot: 3, gpa: PAGED, length: PAGES * PAGE, userspace: rig.low.address });

describe('memslots can no longer be changed: stopped event and failed exits', () => {
  const HOW = [
    { how: 'throwing', code: 'KERNEL', flavour: 'composite' },
    { how: 'ending', code: 'HANDLER_DIED', flavour: 'kvm-exit' },
    { how: 'throwing', code: 'KERNEL', flavour: 'guest-memfd' },
  ] as const;

  test.for(HOW)('$flavour, a hook that is $how', async ({ how, code: expected, flavour }, context) => {
    using rig = Rig.open(context);
    const module = new URL('./fixtures/hooks.mjs', import.meta.url).href;
    const options = { words: new SharedArrayBuffer(4), from: 1 }; // the first is for the slots' beginning
    const backend = backendOf(flavour, {
      vm: rig.vm.fd,
      vcpus: 1,
      hooks: { module, export: how, options },
    });
    const { pager } = await pagerOver(backend, [rig.region(PAGES, PAGE, memoryOf(flavour))], imageOf(PAGES));
    const stopped = stoppedOf(pager);
    const { result } = await rig.run(
      rig.vcpu(ENTRY.load, { rdi: BigInt(at(0)) }),
      backend.exitHandlerToken(0),
    );
    expect(await result).toMatchObject({ handled: 'failed', failure: 'stopped' });
    expect(await stopped).toMatchObject({ code: expected });
    expect(await code(pager.ensure(range(3)))).toBe('STOPPED');
    expect(await code(pager.discard(range(0), { then: 'refetch' }))).toBe('STOPPED');
    if (flavour !== 'kvm-exit') {
      // Who waits in a page fault is let go as well, with an error and not with zeros.
      const hva = Number(pager.layout.hvaOf(PAGED_PAGE.data + 5));
      const touch = await rig.start<{ errno?: number }>({ kind: 'syscall', address: hva });
      expect((await touch.result).errno).toBe(14);
    }
    await code(pager.close({ missing: 'leave' })); // the hook throws once more, or its thread has ended
    expectFree(rig);
  });
});

describe('close while an access waits', () => {
  test.for(['poison', 'leave'] as const)(
    'an access of KVM waits for a page, and a memslot update for the access: %s',
    async (missing, context) => {
      using rig = Rig.open(context);
      const backend = backendOf('composite', { vm: rig.vm.fd, vcpus: 2 });
      const source = new HeldSource(imageOf(PAGES));
      const pager = await openPager({
        backend,
        regions: [rig.region(PAGES)],
        source: source.ref,
        needs: ['vcpu', 'kernel', 'vmm'],
        policy: { faultAroundPages: 1 },
      });
      const askedForTables = source.hold(PAGED_PAGE.tables);
      const walker = rig.vcpu(ENTRY.done, {}, { code: LOW.code, tables: PAGED });
      const walk = await rig.start<{ valid: boolean }>(
        { kind: 'translate', linear: 0x5000n },
        walker,
        backend.exitHandlerToken(0),
      );
      await askedForTables;
      const run = await rig.run(rig.vcpu(ENTRY.load, { rdi: BigInt(at(0)) }), backend.exitHandlerToken(1));
      while (!pager.memory!.isPresent(range(0)[0]!)) await new Promise((resolve) => setImmediate(resolve));
      rig.vm.close(); // the VMM lets go of its descriptor as well
      await pager.close({ missing });
      expect((await walk.result).valid).toBe(false);
      const { handled, exit } = await run.result;
      // The slot came just before the end, or it did not.
      if (handled !== 'failed') expect(exit).toMatchObject({ kind: 'io', port: PORT.done });
      source.close();
    },
  );

  test('pause: a thread has ended inside its exit handler: is not waited for', async (context) => {
    using rig = Rig.open(context);
    const backend = backendOf('kvm-exit', { vm: rig.vm.fd, vcpus: 2 });
    const { pager } = await pagerOver(backend, [rig.region(PAGES)], imageOf(PAGES));
    await (
      await rig.start({ kind: 'vanish' }, rig.vcpu(ENTRY.done), backend.exitHandlerToken(0))
    ).ended;
    await pager.ensure(range(0));
    await backend.publish(range(0));
    await pager.close({ missing: 'leave' });
    expectFree(rig);
  });
});

describe('fewer memslots than pages: chunks', () => {
  const SLOTS = { first: 8, count: 6 }; // two are for slot verification, so chunks have eight pages

  test.for(FLAVOURS)(
    '%s: a guest runs: chunks are mapped once they are complete',
    async (flavour, context) => {
      using rig = Rig.open(context);
      const backend = backendOf(flavour, { vm: rig.vm.fd, vcpus: 1, slots: SLOTS });
      const { pager } = await pagerOver(
        backend,
        [rig.region(PAGES, PAGE, memoryOf(flavour))],
        imageOf(PAGES),
      );
      const granules = pager.coverage.filter(({ effect }) => effect === 'exits');
      expect(new Set(granules.map(({ granule_bytes }) => granule_bytes))).toEqual(new Set([8 * PAGE]));
      const vcpu = rig.vcpu(ENTRY.scan, { rdi: BigInt(at(0)), rsi: BigInt(COUNT) });
      const { result } = await rig.run(vcpu, backend.exitHandlerToken(0));
      expect(await result).toMatchObject({ exit: { kind: 'io', port: PORT.done }, rax: SUM });
      // A page that goes takes its chunk out of sight; the rest of the chunk keeps what the guest wrote.
      await pager.discard(range(3), { then: 'refetch' });
      const again = rig.vcpu(ENTRY.load, { rdi: BigInt(at(2) + 8) });
      const { result: second } = await rig.run(again, backend.exitHandlerToken(0));
      expect(await second).toMatchObject({
        exit: { kind: 'io' },
        rax: BigInt(at(0)) * 3n + BigInt(3 * PAGE),
      });
      await pager.close({ missing: 'leave' });
    },
  );

  test('an unavailable page: its chunk is unavailable', async (context) => {
    using rig = Rig.open(context);
    const backend = backendOf('kvm-exit', { vm: rig.vm.fd, vcpus: 2, slots: SLOTS });
    const { pager } = await pagerOver(backend, [rig.region(PAGES)], imageOf(PAGES));
    await pager.poison(range(5));
    const { result } = await rig.run(
      rig.vcpu(ENTRY.load, { rdi: BigInt(at(2)) }),
      backend.exitHandlerToken(0),
    );
    expect(await result).toMatchObject({ handled: 'failed', failure: 'poisoned' });
    const { result: other } = await rig.run(
      rig.vcpu(ENTRY.load, { rdi: BigInt(at(9)) }),
      backend.exitHandlerToken(1),
    );
    expect(await other).toMatchObject({ exit: { kind: 'io' }, rax: BigInt(at(9)) });
    await pager.close({ missing: 'leave' });
  });

  test('fewer memslots than regions: BAD_RANGE', async (context) => {
    using rig = Rig.open(context);
    const backend = backendOf('kvm-exit', { vm: rig.vm.fd, vcpus: 1, slots: { first: 8, count: 2 } });
    const attach = pagerOver(backend, [rig.region(PAGES)], imageOf(PAGES));
    expect(await code(attach)).toBe('BAD_RANGE');
  });
});

describe('freeze', () => {
  test.for(['kvm-exit', 'guest-memfd'] as const)(
    '%s: frozen pages: no access completes until thaw, and their contents stay',
    async (flavour, context) => {
      using rig = Rig.open(context);
      const backend = backendOf(flavour, { vm: rig.vm.fd, vcpus: 2 });
      const { pager } = await pagerOver(
        backend,
        [rig.region(PAGES, PAGE, memoryOf(flavour))],
        imageOf(PAGES),
      );
      const store = rig.vcpu(ENTRY.store, { rdi: BigInt(at(0)), rsi: 0x1234n });
      expect(await (await rig.run(store, backend.exitHandlerToken(0))).result).toMatchObject({
        exit: { kind: 'io' },
      });
      await pager.freeze(range(0));
      const waits: Doing<unknown>[] = [
        await rig.run(rig.vcpu(ENTRY.load, { rdi: BigInt(at(0)) }), backend.exitHandlerToken(0)),
      ];
      if (flavour === 'guest-memfd') {
        const address = Number(pager.layout.hvaOf(PAGED_PAGE.data));
        waits.push(await rig.start({ kind: 'syscall', address }));
      }
      let through = 0;
      for (const { result } of waits) void result.then(() => through++);
      const held = (): number => pager.statistics().heldFaults;
      while (held() < waits.length) await new Promise((resolve) => setImmediate(resolve));
      // Another page goes on coming meanwhile.
      const other = await rig.run(rig.vcpu(ENTRY.load, { rdi: BigInt(at(4)) }), backend.exitHandlerToken(1));
      expect(await other.result).toMatchObject({ rax: BigInt(at(4)) });
      expect(through).toBe(0);
      await pager.thaw(range(0));
      const [run, touch] = (await Promise.all(waits.map(({ result }) => result))) as [
        RunResult,
        { value: bigint } | undefined,
      ];
      expect(run).toMatchObject({ exit: { kind: 'io' }, rax: 0x1234n });
      if (touch) expect(touch.value).toBe(0x1234n);
      expect(pager.statistics()).toMatchObject({ vanishedPages: 0 });
      await pager.close({ missing: 'leave' });
    },
  );

  test('composite: present pages: NOT_SUPPORTED', async (context) => {
    using rig = Rig.open(context);
    const backend = backendOf('composite', { vm: rig.vm.fd, vcpus: 1 });
    const { pager } = await pagerOver(backend, [rig.region(PAGES)], imageOf(PAGES));
    await pager.ensure(range(0));
    expect(await code(pager.freeze(range(0)))).toBe('NOT_SUPPORTED');
    await pager.close({ missing: 'leave' });
  });
});

describe('userfault-bitmap, which no released kernel supports', () => {
  test('an absent capability, a refused flag, or no numbers: refused', async (context) => {
    using rig = Rig.open(context);
    const attach = (capability: number): Promise<unknown> => {
      const strategy = 'userfault-bitmap';
      const userfault = { capability };
      const backend = backendOf('kvm-exit', { vm: rig.vm.fd, vcpus: 1, strategy, userfault });
      return pagerOver(backend, [rig.region(PAGES)], imageOf(PAGES));
    };
    if (rig.vm.check(9999) !== 0) context.skip('this kernel knows capability 9999');
    expect(await code(attach(9999))).toBe('NOT_SUPPORTED');
    // A capability that is there for something else does not make the flag known.
    expect(await code(attach(KVM_CAP.NR_MEMSLOTS))).toBe('NOT_SUPPORTED');
    expect(() => backendOf('kvm-exit', { vm: rig.vm.fd, vcpus: 1, strategy: 'userfault-bitmap' })).toThrow(
      TypeError,
    );
    expectFree(rig);
  });
});

describe('exits between faults', () => {
  test('other exits and signals while a guest reads missing pages: every page is read', async (context) => {
    using rig = Rig.open(context);
    installKickSignal();
    const backend = backendOf('composite', { vm: rig.vm.fd, vcpus: 1 });
    const { pager } = await pagerOver(backend, [rig.region(PAGES)], imageOf(PAGES));
    // load, store and atomic follow each other, with an exit to the VMM after each.
    const vcpu = rig.vcpu(ENTRY.load, { rdi: BigInt(at(0)), rsi: 5n });
    for (const [index, wanted] of [BigInt(at(0)), BigInt(at(1)), BigInt(at(2))].entries()) {
      vcpu.setRegisters({ rdi: BigInt(at(index)) });
      const { thread, result } = await rig.run(vcpu, backend.exitHandlerToken(0));
      let over = false;
      void result.finally(() => (over = true));
      for (let kicks = 0; !over && kicks < 200; kicks++) {
        kickThread(thread);
        await new Promise((resolve) => setImmediate(resolve));
      }
      expect(await result).toMatchObject({ handled: 'unhandled', exit: { kind: 'io', port: PORT.done } });
      if (index === 0) expect(vcpu.registers.rax).toBe(wanted);
      if (index === 2) expect(vcpu.registers.rsi).toBe(wanted); // what the atomic found
    }
    const stored = await pager.memory!.read(gpa(at(1)), 8);
    expect(new DataView(stored.buffer).getBigUint64(0, true)).toBe(5n);
    await pager.close({ missing: 'leave' });
  });

  test.for(FLAVOURS)('%s: an access across two missing pages: completes', async (flavour, context) => {
    using rig = Rig.open(context);
    const backend = backendOf(flavour, { vm: rig.vm.fd, vcpus: 1 });
    const { pager } = await pagerOver(backend, [rig.region(PAGES, PAGE, memoryOf(flavour))], imageOf(PAGES));
    const { result } = await rig.run(
      rig.vcpu(ENTRY.load, { rdi: BigInt(at(1) - 4) }),
      backend.exitHandlerToken(0),
    );
    expect(await result).toMatchObject({ exit: { kind: 'io' }, rax: BigInt(at(1)) << 32n });
    await pager.close({ missing: 'leave' });
  });

  test('memslot-hole: an access across two holes, and an atomic: complete', async (context) => {
    using rig = Rig.open(context);
    const backend = backendOf('kvm-exit', { vm: rig.vm.fd, vcpus: 2, strategy: 'memslot-hole' });
    const { pager } = await pagerOver(backend, [rig.region(PAGES)], imageOf(PAGES), { needs: [] });
    const crossing = await rig.run(
      rig.vcpu(ENTRY.load, { rdi: BigInt(at(1) - 4) }),
      backend.exitHandlerToken(0),
    );
    expect(await crossing.result).toMatchObject({ exit: { kind: 'io' }, rax: BigInt(at(1)) << 32n });
    const atomic = await rig.run(
      rig.vcpu(ENTRY.atomic, { rdi: BigInt(at(4)), rsi: 3n }),
      backend.exitHandlerToken(1),
    );
    expect(await atomic.result).toMatchObject({ exit: { kind: 'io' }, rsi: BigInt(at(4)) });
    const sum = await pager.memory!.read(gpa(at(4)), 8);
    expect(new DataView(sum.buffer).getBigUint64(0, true)).toBe(BigInt(at(4)) + 3n);
    await pager.close({ missing: 'leave' });
  });
});

describe('exhausted or held resources', () => {
  test('vacated-is-verified: another process holds the file of vacated slots: detected', async (context) => {
    using rig = Rig.open(context);
    using vm = new KvmVm(duplicate(rig.vm.fd), rig.kvm.run_bytes);
    const verification = new SlotVerification(vm, { slot: 100, gpa: 0x4_0000_0000, vcpuId: 7 });
    const file = vm.createGuestMemfd(2 * PAGE, GUEST_MEMFD_SHARED);
    verification.bindSlot(file, PAGE);
    const slot = { slot: 5, gpa: PAGED, length: PAGE, userspace: rig.low.address };
    rig.vm.setSlot({ ...slot, guestMemfd: file, guestMemfdOffset: 0 });
    setCloseOnExec(file, false);
    const other = spawn(process.execPath, ['-e', 'process.stdin.resume()'], {
      stdio: ['pipe', 'ignore', 'ignore', file],
    });
    closeDescriptor(file);
    expect(verification.check()).toMatch('exit io');
    // What a backend that trusted it would let happen: no exit, and zeros where a page is missing.
    const { result } = await rig.run(rig.vcpu(ENTRY.load, { rdi: BigInt(PAGED), rax: 1n }), undefined);
    expect(await result).toMatchObject({ exit: { kind: 'io', port: PORT.done }, rax: 0n });
    const ended = new Promise((resolve) => other.once('exit', resolve));
    other.stdin!.end();
    await ended;
    verification.close();
  });

  test('an empty huge page pool: NO_HUGE_PAGES', async (context) => {
    using rig = Rig.open(context);
    const pool = hugePagePool();
    if (!pool) return context.skip('this kernel has no huge pages');
    for (const flavour of ['kvm-exit', 'composite'] as const) {
      const backend = backendOf(flavour, { vm: rig.vm.fd, vcpus: 1 });
      const pages = (pool.free + 1) * (pool.pageSize / PAGE);
      const region = {
        ...rig.region(pages, pool.pageSize, 'hugetlb'),
        sourceOffset: rig.region(1).sourceOffset,
      };
      expect(await code(pagerOver(backend, [region], new SharedArrayBuffer(8)))).toBe('NO_HUGE_PAGES');
    }
    expectFree(rig);
  });
});

describe('guest-memfd: the process has vm.max_map_count mappings: complete pages are mapped on access', () => {
  const word = (bytes: Uint8Array | undefined): bigint =>
    new DataView(bytes!.buffer, bytes!.byteOffset).getBigUint64(0, true);

  const MANY = 512;
  const pages = Array.from({ length: (MANY - PAGED_PAGE.data) / 2 }, (_, run) => run * 2);

  test('accesses in turn: every page is read whole; vCPUs are not affected', async (context) => {
    using rig = Rig.open(context);
    const backend = backendOf('guest-memfd', { vm: rig.vm.fd, vcpus: 1 });
    const { pager } = await pagerOver(backend, [rig.region(MANY, PAGE, 'guest-memfd')], imageOf(MANY));
    const problems: unknown[] = [];
    pager.on('source-failed', (_pages, error) => problems.push(error));
    using hoard = new Hoard();
    hoard.fill();
    // Each takes two mappings, of those that the library would leave to others.
    for (let round = 0; round < 2; round++)
      for (const page of pages) {
        await pager.ensure(range(page));
        expect(word(pager.memory?.readSync(gpa(at(page)), 8))).toBe(BigInt(at(page)));
      }
    await pager.discard(range(10), { then: 'refetch' });
    expect(word(await pager.memory?.read(gpa(at(10)), 8))).toBe(BigInt(at(10)));
    expect(backend.memslotUpdates.unmappedRuns).toBeGreaterThan(10);
    hoard[Symbol.dispose]();
    const { result } = await rig.run(
      rig.vcpu(ENTRY.load, { rdi: BigInt(at(10)) }),
      backend.exitHandlerToken(0),
    );
    expect(await result).toMatchObject({ handled: 'unhandled', rax: BigInt(at(10)) });
    expect(problems).toEqual([]);
    await pager.close({ missing: 'leave' });
  });

  test('close with memory of the VMM: every page is mapped', async (context) => {
    using rig = Rig.open(context);
    using own = mapMemory({ kind: 'anonymous', length: PAGES * PAGE });
    const backend = backendOf('guest-memfd', { vm: rig.vm.fd, vcpus: 1 });
    const region = { ...rig.region(PAGES, PAGE, 'guest-memfd'), hva: own.hva };
    const { pager } = await pagerOver(backend, [region], imageOf(PAGES));
    using hoard = new Hoard();
    hoard.fill();
    await pager.ensure(range(0, COUNT));
    expect(residentPages(own.address + (PAGED_PAGE.data + 5) * PAGE, PAGE)).toEqual(new Uint8Array([0]));
    hoard[Symbol.dispose]();
    await pager.close({ missing: 'populate' });
    const all = Array.from({ length: COUNT }, (_, page) => page);
    const first = own.address + PAGED_PAGE.data * PAGE;
    expect(all.map((page) => loadWord(first + page * PAGE))).toEqual(all.map(at));
  });
});

/** Takes the mappings that the process may have, but for some without which Node's heap cannot live. */
class Hoard implements Disposable {
  readonly #memory = mapMemory({ kind: 'reserved', length: 2 * 70_000 * pageSize() });
  #over = false;

  fill(): void {
    for (let page = 0; page < 2 * 70_000; page += 2) {
      try {
        this.#memory.protect(1, page * pageSize(), pageSize());
      } catch {
        for (let left = 0; left < LEFT_MAPPINGS; left += 2)
          this.#memory.protect(0, (page - left - 2) * pageSize(), pageSize());
        return;
      }
    }
    throw new Error('this kernel lets a process have more than 140000 mappings');
  }

  [Symbol.dispose](): void {
    if (!this.#over) this.#memory.dispose();
    this.#over = true;
  }
}

test.for([['composite'], ['kvm-exit'], ['guest-memfd']] as const)(
  '%s: two vCPUs fault on one page at once, repeatedly: both are served',
  { timeout: LONG ? 3_600_000 : 600_000 },
  async ([flavour], context) => {
    const times = LONG ? 100_000 : 1000;
    using rig = Rig.open(context);
    const backend = backendOf(flavour, { vm: rig.vm.fd, vcpus: 2 });
    const { pager } = await pagerOver(backend, [rig.region(PAGES, PAGE, memoryOf(flavour))], imageOf(PAGES));
    const registers = { rdi: BigInt(at(0)), rsi: 1n, r10: BigInt(LOW.counter), r9: 0n };
    const runs = await Promise.all(
      [0, 1].map((n) => rig.run(rig.vcpu(ENTRY.hammer, registers), backend.exitHandlerToken(n))),
    );
    for (let done = 0; done < times;) {
      if (!pager.states.isPresent(PAGED_PAGE.data)) await new Promise((resolve) => setImmediate(resolve));
      else {
        await pager.discard(range(0), { then: 'refetch' });
        done++;
      }
    }
    rig.stopGuests();
    let rounds = 0n;
    for (const { result } of runs) {
      const end = await result;
      expect(end).toMatchObject({ handled: 'unhandled', exit: { kind: 'io', port: PORT.done } });
      rounds += end.r9;
    }
    expect(rig.word(LOW.counter)).toBe(rounds);
    expect(pager.statistics()).toMatchObject({ refetchPages: times, vanishedPages: 0 });
    await pager.close({ missing: 'leave' });
  },
);
