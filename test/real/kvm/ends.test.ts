import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, expect, test } from 'vitest';
import { DemandPagingError, gpa } from '../../../src/api/index.js';
import {
  closeDescriptor,
  duplicate,
  ERRNO,
  GUEST_MEMFD_SHARED,
  KvmVm,
  setCloseOnExec,
} from '../../../src/linux/index.js';
import { SlotVerification } from '../../../src/kvm/slot-verification.js';
import { SlotTable } from '../../../src/kvm/slot-table.js';
import { vacateSlots } from '../../../src/kvm/vacate-slots.js';
import {
  backendOf,
  ENTRY,
  imageOf,
  LOW,
  memoryOf,
  PAGE,
  PAGED,
  PAGED_PAGE,
  pagerOver,
  PORT,
  Rig,
} from './rig.js';

const PAGES = 16;
const DATA = PAGED + PAGED_PAGE.data * PAGE;

const code = async (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => 'nothing thrown',
    (error: unknown) => (error instanceof DemandPagingError ? error.code : error),
  );

describe('vacated-is-verified', () => {
  const PLACE = { slot: 100, gpa: 0x4_0000_0000, vcpuId: 7 };
  const BYTES = PAGES * PAGE;

  /** The paged region under vacated slots. */
  function tableOf(vm: KvmVm, rig: Rig): SlotTable {
    const { address } = rig.low;
    const memory = { address, whileMissing: address, guestMemfd: -1, guestMemfdOffset: 0 };
    const region = { page: 0, count: PAGES, pageSize: PAGE, chunk: 1, gpa: PAGED, ...memory };
    return new SlotTable(vm, [region], { first: 16, count: PAGES }, false);
  }

  test('slot verification: a process holds the file: the access ends by another exit', (context) => {
    using rig = Rig.open(context);
    using vm = new KvmVm(duplicate(rig.vm.fd), rig.kvm.run_bytes);
    const verification = new SlotVerification(vm, PLACE);
    const file = vm.createGuestMemfd(BYTES, GUEST_MEMFD_SHARED);
    const held = duplicate(file);
    verification.bindSlot(file, 0);
    closeDescriptor(file);
    expect(verification.check()).toMatch('exit io');
    const other = vm.createGuestMemfd(BYTES, GUEST_MEMFD_SHARED);
    verification.bindSlot(other, 0);
    closeDescriptor(other);
    closeDescriptor(held);
    expect(verification.check()).toBeUndefined();
    verification.close();
  });

  test('vacateSlots: a process holds the file for good: the slots are bound to another file', async (context) => {
    using rig = Rig.open(context);
    using vm = new KvmVm(duplicate(rig.vm.fd), rig.kvm.run_bytes);
    const verification = new SlotVerification(vm, PLACE);
    const table = tableOf(vm, rig);
    const started: ChildProcess[] = [];
    vacateSlots(vm, BYTES, verification, (file, again) => {
      if (again) return table.bindAgain({ first: 0, count: PAGES }, file);
      table.start(file);
      // As a process has it that is started before the descriptor closes on exec.
      setCloseOnExec(file, false);
      started.push(
        spawn(process.execPath, ['-e', 'process.stdin.resume()'], {
          stdio: ['pipe', 'ignore', 'ignore', file],
        }),
      );
    });
    expect(started).toHaveLength(1);
    const { result } = await rig.run(rig.vcpu(ENTRY.load, { rdi: BigInt(DATA) }), undefined);
    expect(await result).toMatchObject({ errno: ERRNO.EFAULT, exit: { kind: 'memory-fault', gpa: DATA } });
    const ended = once(started[0]!, 'exit');
    started[0]!.stdin!.end();
    await ended;
    verification.close();
  });

  test('vacateSlots: every file is held: COVERAGE_GAP with a hint', (context) => {
    using rig = Rig.open(context);
    using vm = new KvmVm(duplicate(rig.vm.fd), rig.kvm.run_bytes);
    const verification = new SlotVerification(vm, PLACE);
    const table = tableOf(vm, rig);
    const held: number[] = [];
    const attempt = (): void =>
      vacateSlots(vm, BYTES, verification, (file, again) => {
        held.push(duplicate(file));
        if (again) table.bindAgain({ first: 0, count: PAGES }, file);
        else table.start(file);
      });
    expect(attempt).toThrow(expect.objectContaining({ code: 'COVERAGE_GAP' }) as Error);
    expect(held.length).toBeGreaterThan(1);
    for (const file of held) closeDescriptor(file);
    verification.close();
  });

  test('slot verification: the VMM has memory in the window: uses the next one and deletes its slots', (context) => {
    using rig = Rig.open(context);
    rig.vm.setSlot({ slot: 5, gpa: 0x4_0000_0000, length: PAGE, userspace: rig.low.address });
    const verification = new SlotVerification(rig.vm, PLACE);
    const file = rig.vm.createGuestMemfd(PAGE, GUEST_MEMFD_SHARED);
    verification.bindSlot(file, 0);
    closeDescriptor(file);
    expect(verification.check()).toBeUndefined();
    verification.close();
    // Free again: other memslots can take these numbers and addresses.
    rig.vm.setSlot({ slot: 100, gpa: 0x4_0020_0000, length: 0x20_0000, userspace: rig.low.address });
  });
});

describe('unavailable pages', () => {
  test.for(['kvm-exit', 'composite', 'guest-memfd'] as const)(
    '%s: the source fails for good: the exit of the vCPU fails and the page is poisoned',
    async (flavour, context) => {
      using rig = Rig.open(context);
      const backend = backendOf(flavour, { vm: rig.vm.fd, vcpus: 2 });
      const policy = { onSourceFailure: 'poison', retries: 0 } as const;
      const { pager, control } = await pagerOver(
        backend,
        [rig.region(PAGES, PAGE, memoryOf(flavour))],
        imageOf(PAGES),
        { policy },
      );
      Atomics.store(control, 0, 1);
      const { result } = await rig.run(
        rig.vcpu(ENTRY.load, { rdi: BigInt(DATA) }),
        backend.exitHandlerToken(0),
      );
      expect(await result).toMatchObject({
        handled: 'failed',
        failure: 'poisoned',
        rip: BigInt(LOW.code + ENTRY.load),
      });
      Atomics.store(control, 0, 0);
      expect(await code(pager.memory!.read(gpa(DATA), 8))).toBe('PAGE_POISONED');
      const { result: again } = await rig.run(
        rig.vcpu(ENTRY.load, { rdi: BigInt(DATA) }),
        backend.exitHandlerToken(1),
      );
      expect(await again).toMatchObject({ handled: 'failed', failure: 'poisoned' });
      await pager.close({ missing: 'leave' });
    },
  );

  test('kvm-exit: the vCPU reenters after a failed page: the page is fetched again', async (context) => {
    using rig = Rig.open(context);
    const backend = backendOf('kvm-exit', { vm: rig.vm.fd, vcpus: 1 });
    const policy = { onSourceFailure: 'fail', retries: 0 } as const;
    const { pager, control } = await pagerOver(backend, [rig.region(PAGES)], imageOf(PAGES), { policy });
    Atomics.store(control, 0, 1);
    const vcpu = rig.vcpu(ENTRY.load, { rdi: BigInt(DATA) });
    const first = await rig.run(vcpu, backend.exitHandlerToken(0));
    expect(await first.result).toMatchObject({ handled: 'failed', failure: 'failed' });
    Atomics.store(control, 0, 0);
    const second = await rig.run(vcpu, backend.exitHandlerToken(0));
    expect(await second.result).toMatchObject({
      handled: 'unhandled',
      exit: { kind: 'io' },
      rax: BigInt(DATA),
    });
    await pager.close({ missing: 'leave' });
  });

  test('exit handler: a fault outside every region, or another exit: unhandled', async (context) => {
    using rig = Rig.open(context);
    const backend = backendOf('composite', { vm: rig.vm.fd, vcpus: 1 });
    const { pager } = await pagerOver(backend, [rig.region(PAGES)], imageOf(PAGES));
    const outside = PAGED + PAGES * PAGE;
    const { result } = await rig.run(
      rig.vcpu(ENTRY.load, { rdi: BigInt(outside) }),
      backend.exitHandlerToken(0),
    );
    expect(await result).toMatchObject({ handled: 'unhandled', exit: { kind: 'mmio', gpa: outside } });
    await pager.close({ missing: 'leave' });
  });

  test('a guest access to removed pages: reads zeros', async (context) => {
    using rig = Rig.open(context);
    const backend = backendOf('guest-memfd', { vm: rig.vm.fd, vcpus: 1 });
    const { pager } = await pagerOver(backend, [rig.region(PAGES, PAGE, 'guest-memfd')], imageOf(PAGES));
    await pager.ensure([{ start: gpa(DATA), length: BigInt(PAGE) }]);
    await pager.discard([{ start: gpa(DATA), length: BigInt(PAGE) }], { then: 'zero' });
    const { result } = await rig.run(
      rig.vcpu(ENTRY.load, { rdi: BigInt(DATA) }),
      backend.exitHandlerToken(0),
    );
    expect(await result).toMatchObject({ exit: { kind: 'io', port: PORT.done }, rax: 0n });
    await pager.close({ missing: 'leave' });
  });

  test('close while a vCPU waits: its exit fails', async (context) => {
    using rig = Rig.open(context);
    const backend = backendOf('kvm-exit', { vm: rig.vm.fd, vcpus: 1 });
    const policy = { retries: 1, retryDelay_ms: 100_000 };
    const { pager, control } = await pagerOver(backend, [rig.region(PAGES)], imageOf(PAGES), { policy });
    Atomics.store(control, 0, 1);
    const retrying = new Promise((resolve) => pager.once('retrying', resolve));
    const { result } = await rig.run(
      rig.vcpu(ENTRY.load, { rdi: BigInt(DATA) }),
      backend.exitHandlerToken(0),
    );
    await retrying;
    await pager.close({ missing: 'leave' });
    expect((await result).handled).toBe('failed');
  });
});

describe('bad input: refused, and nothing is leaked', () => {
  test('a region that overlaps another memslot', async (context) => {
    using rig = Rig.open(context);
    rig.vm.setSlot({ slot: 3, gpa: PAGED + 4 * PAGE, length: PAGE, userspace: rig.low.address });
    const attach = pagerOver(
      backendOf('kvm-exit', { vm: rig.vm.fd, vcpus: 1 }),
      [rig.region(PAGES)],
      imageOf(PAGES),
    );
    expect(await code(attach)).toBe('BAD_RANGE');
    // The slots that were there before the overlap was met are gone again.
    rig.vm.setSlot({ slot: 4, gpa: PAGED, length: 4 * PAGE, userspace: rig.low.address });
  });

  test('memory of the wrong kind', async (context) => {
    using rig = Rig.open(context);
    const attach = (
      flavour: 'kvm-exit' | 'guest-memfd',
      memory: 'anonymous' | 'guest-memfd',
    ): Promise<unknown> =>
      pagerOver(
        backendOf(flavour, { vm: rig.vm.fd, vcpus: 1 }),
        [rig.region(PAGES, PAGE, memory)],
        imageOf(PAGES),
      );
    expect(await code(attach('kvm-exit', 'guest-memfd'))).toBe('NOT_SUPPORTED');
    expect(await code(attach('guest-memfd', 'anonymous'))).toBe('NOT_SUPPORTED');
  });

  test('needs with an access class that stays unmediated', async (context) => {
    using rig = Rig.open(context);
    const backend = backendOf('kvm-exit', { vm: rig.vm.fd, vcpus: 1 });
    const attach = pagerOver(backend, [rig.region(PAGES)], imageOf(PAGES), { needs: ['vcpu', 'vmm'] });
    expect(await code(attach)).toBe('COVERAGE_GAP');
  });

  test('KVM backends: options out of bounds, a handler opened twice or for no vCPU: refused', async (context) => {
    using rig = Rig.open(context);
    expect(() => backendOf('kvm-exit', { vm: -1, vcpus: 1 })).toThrow(RangeError);
    expect(() => backendOf('kvm-exit', { vm: 3, vcpus: 0 })).toThrow(RangeError);
    const backend = backendOf('kvm-exit', { vm: rig.vm.fd, vcpus: 1 });
    expect(() => backend.exitHandlerToken(0)).toThrow(expect.objectContaining({ code: 'CLOSED' }) as Error);
    const { pager } = await pagerOver(backend, [rig.region(PAGES)], imageOf(PAGES));
    expect(() => backend.exitHandlerToken(1)).toThrow(RangeError);
    await pager.close({ missing: 'leave' });
    expect(() => backend.exitHandlerToken(0)).toThrow(expect.objectContaining({ code: 'CLOSED' }) as Error);
  });
});
