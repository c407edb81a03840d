import assert from 'node:assert/strict';
import { release } from 'node:os';
import { after, before, test, type TestContext } from 'node:test';
import {
  copyMemory,
  GUEST_MEMFD_SHARED,
  Kvm,
  KVM_MEM,
  KvmDevice,
  type KvmVcpu,
  type KvmVm,
  makePipe,
  closeDescriptor,
  NativeBlock,
  raw,
  readMemory,
} from 'demand-paging/linux';
import { type Access, takeCensus } from '../../census/accesses.js';
import {
  DONE,
  GUEST_PAGES,
  guestWords,
  PLACE,
  RAM,
  RAM_BYTES,
  startGuest,
} from '../../census/arm64-guest.js';
import { GuestPages } from '../../census/guest-pages.js';
import { mechanismOf, rowOf, sumAccesses } from '../../census/table.js';
import { Tracer } from '../../census/tracer.js';
import { GuestRam } from '../../its/guest-ram.js';
import { record } from '../support/record.js';

/*
 * Which functions of this kernel use guest memory while a vCPU runs, while the VMM's own threads use it, and
 * while another part of the kernel does.
 */
const PAGE = 4096;
const KVM_ARM_VCPU_PVTIME_CTRL = 2;
const KVM_ARM_VCPU_PVTIME_IPA = 0n;

let ram: GuestRam;
let kvm: Kvm;
let tracer: Tracer | string;
const seen: (readonly Access[])[] = [];
before(async () => {
  tracer = Tracer.open('census');
  ram = await GuestRam.open(RAM_BYTES);
  kvm = Kvm.open();
});
after(async () => {
  kvm.close();
  await ram.close();
  if (typeof tracer !== 'string') tracer[Symbol.dispose]();
  record('accesses', sumAccesses(seen).map(rowOf));
});

interface Observed<R> {
  readonly result: R;
  readonly accesses: readonly Access[];
  readonly faults: readonly bigint[];
}

/**
 * Traces an operation that meets every page missing; undefined, and the test skipped, where nothing can be
 * traced.
 */
function observe<R>(context: TestContext, operation: () => R): Observed<R> | undefined {
  if (typeof tracer === 'string') {
    context.skip(tracer);
    return undefined;
  }
  const { result, trace } = tracer.during(() => ram.observe(operation));
  assert.equal(trace.lost, 0, 'the trace has lost entries');
  const { accesses } = takeCensus(trace.events, new GuestPages(ram.slots, PAGE));
  seen.push(accesses);
  return { result: result.result, accesses, faults: result.effects.faults.map(([page]) => page) };
}

/** A VM with the guest's memory in slot 0, and a vCPU at the beginning of its code. */
class Machine implements Disposable {
  readonly vm: KvmVm;
  readonly vcpu: KvmVcpu;

  constructor(flags = 0) {
    ram.reset([{ gpa: RAM, size: BigInt(RAM_BYTES) }]);
    for (const [gpa, word] of guestWords()) ram.setWord(gpa, word);
    this.vm = kvm.createVm();
    this.vm.setSlot({ slot: 0, flags, ...ram.slots[0]! });
    this.vcpu = this.vm.createVcpu(0);
    this.vcpu.initialise(this.vm.preferredTarget());
    startGuest(this.vcpu);
  }

  /** Runs to the guest's end. */
  run(): void {
    assert.equal(this.vcpu.enter(), 0);
    const exit = this.vcpu.run.exit();
    assert.deepEqual([exit.kind, exit.kind === 'mmio' && exit.gpa], ['mmio', Number(DONE)]);
  }

  [Symbol.dispose](): void {
    this.vcpu.close();
    this.vm.close();
  }
}

const slipped = (accesses: readonly Access[]): object[] =>
  accesses.filter(({ slipped: times }) => times > 0).map(rowOf);

test("a vCPU's loads, stores, atomics, instruction fetches and page-table walks wait in userfaultfd", (context) => {
  using machine = new Machine();
  const observed = observe(context, () => machine.run());
  if (observed === undefined) return;
  assert.deepEqual(new Set(observed.faults), new Set(GUEST_PAGES));
  const pins = observed.accesses.filter(({ operation }) => operation === 'pin');
  assert.equal(
    pins.reduce((sum, { waited }) => sum + waited, 0),
    GUEST_PAGES.length,
  );
  assert.ok(pins.every(({ context: by }) => by === 'KVM_RUN'));
  assert.deepEqual(slipped(observed.accesses), []);
});

test('a vacated slot: KVM_RUN comes back with the fault', (context) => {
  using machine = new Machine();
  const { vm, vcpu } = machine;
  if (!vm.sharesGuestMemfd) return context.skip(`Linux ${release()} has no guest_memfd that can be mapped`);
  // The pages that are loaded from and stored to are in a slot of their own, whose file is closed again.
  const slot = ram.slots[0]!;
  const before = Number(PLACE.load - RAM);
  vm.setSlot({ slot: 0, gpa: slot.gpa, length: 0, userspace: slot.userspace });
  vm.setSlot({ slot: 0, ...slot, length: before });
  const guestMemfd = vm.createGuestMemfd(RAM_BYTES - before, GUEST_MEMFD_SHARED);
  const vacated = { slot: 1, gpa: slot.gpa + before, length: RAM_BYTES - before, guestMemfd };
  vm.setSlot({ ...vacated, userspace: slot.userspace + before });
  closeDescriptor(guestMemfd);
  const observed = observe(context, () => vcpu.enter());
  if (observed === undefined) return;
  const exit = vcpu.run.exit();
  assert.deepEqual(
    [exit.kind, exit.kind === 'memory-fault' && exit.gpa],
    ['memory-fault', Number(PLACE.load)],
  );
  const exited = observed.accesses.filter((access) => access.exited > 0);
  assert.deepEqual(
    exited.map((access) => [access.context, mechanismOf(access)]),
    exited.map(() => ['KVM_RUN', 'KVM exit']),
  );
  assert.equal(exited.length, 1);
  assert.deepEqual(slipped(observed.accesses), []);
});

test('stolen time waits in userfaultfd', (context) => {
  using machine = new Machine();
  using address = new NativeBlock(8);
  address.view.setBigUint64(0, PLACE.stolen, true);
  const attributes = new KvmDevice(machine.vcpu.fd);
  const status = attributes.set(KVM_ARM_VCPU_PVTIME_CTRL, KVM_ARM_VCPU_PVTIME_IPA, address.address);
  if (status !== 0) return context.skip(`this KVM has no stolen time: ${status}`);
  const observed = observe(context, () => machine.run());
  if (observed === undefined) return;
  assert.ok(observed.faults.includes(PLACE.stolen), 'the guest has been told of no stolen time');
  const touches = observed.accesses.filter(
    ({ site, waited }) => site === 'kvm_update_stolen_time' && waited > 0,
  );
  assert.equal(touches.length, 1, 'the trace does not show it');
  assert.deepEqual(slipped(observed.accesses), []);
});

test('the dirty log reads and writes no guest memory', (context) => {
  using machine = new Machine(KVM_MEM.LOG_DIRTY_PAGES);
  using bitmap = new NativeBlock(RAM_BYTES / PAGE / 8);
  const ran = observe(context, () => machine.run());
  if (ran === undefined) return;
  const logged = observe(context, () => machine.vm.dirtyLog(0, bitmap.address))!;
  assert.deepEqual(logged.faults, []);
  assert.deepEqual(
    logged.accesses.filter(({ operation }) => operation !== 'look up'),
    [],
  );
  const dirty = (gpa: bigint): boolean => {
    const page = Number(gpa - RAM) / PAGE;
    return ((bitmap.bytes[page >> 3]! >> (page & 7)) & 1) === 1;
  };
  assert.ok(dirty(PLACE.store) && dirty(PLACE.atomic) && !dirty(PLACE.load));
});

test("the VMM's own accesses, and those of the kernel for it, wait in userfaultfd", (context) => {
  ram.reset([{ gpa: RAM, size: BigInt(RAM_BYTES) }]);
  using block = new NativeBlock(PAGE);
  const [readEnd, writeEnd] = makePipe();
  const at = (page: number): number => ram.slots[0]!.userspace + page * PAGE;
  const observed = observe(context, () => {
    copyMemory(block.address, at(1), 8);
    copyMemory(at(2), block.address, 8);
    assert.equal(raw.write(writeEnd, at(3), 8), 8);
    assert.equal(raw.read(readEnd, at(4), 8), 8);
    assert.equal(readMemory(block.address, at(5), 8), 8);
  });
  closeDescriptor(readEnd);
  closeDescriptor(writeEnd);
  if (observed === undefined) return;
  assert.deepEqual(
    observed.faults.map((page) => Number(page - RAM) / PAGE),
    [1, 2, 3, 4, 5],
  );
  assert.deepEqual(slipped(observed.accesses), []);
  for (const by of ['user code', 'write(2)', 'read(2)', 'process_vm_readv(2)'])
    assert.ok(
      observed.accesses.some(({ context: where, waited }) => where === by && waited > 0),
      `${by} is not in the trace`,
    );
});
