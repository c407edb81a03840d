import { afterEach, expect, test } from 'vitest';
import { ResolutionBatch } from '../../src/api/index.js';
import { SharedVcpuState, FAULT } from '../../src/kvm/shared-vcpu-state.js';
import { type SlotVm } from '../../src/kvm/slot-table.js';
import { UserfaultSlots } from '../../src/kvm/userfault-slots.js';
import { ERRNO, EventFd, type KvmSlot, mapMemory, pageSize, SharedBits } from '../../src/linux/index.js';
import { exitPort, regionAt } from './exit-port-rig.js';

const PAGES = 40;
const FLAG = 1 << 3;
const undo: (() => void)[] = [];
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step();
});

function rig(basePages: number) {
  const bytes = basePages * pageSize();
  const memory = mapMemory({ kind: 'anonymous', length: PAGES * bytes });
  const bits = SharedBits.create(PAGES * basePages);
  undo.push(
    () => memory.dispose(),
    () => bits.free(),
  );
  const region = regionAt(memory.address, PAGES, bytes);
  const isSet = (page: number): boolean[] =>
    Array.from({ length: basePages }, (_, index) => {
      const bit = page * basePages + index;
      return ((bits.words()[bit >>> 5]! >>> (bit & 31)) & 1) === 1;
    });
  return { memory, bits, region, isSet, bytes };
}

test.for([1, 4])(
  'userfault-bitmap: a page arrives: its bits are cleared after its contents; %i base pages each',
  (basePages) => {
    const { memory, bits, region, isSet, bytes } = rig(basePages);
    bits.set(0, PAGES * basePages);
    const shared = SharedVcpuState.create(PAGES, 1);
    const doorbell = EventFd.create();
    const port = exitPort({
      shared: shared.token,
      regions: [region],
      doorbell: doorbell.fd,
      userfault: new Map([[0, bits.address]]),
      staging_bytes: 4 * bytes,
      verbs: 0xffff,
    });
    undo.push(
      () => doorbell.close(),
      () => port.close(),
    );
    shared.register(0, 5, 1234);
    shared.raiseFault(0, 7, FAULT.pending);
    port.staging.fill(0x5a, 0, 2 * bytes);
    const batch = new ResolutionBatch(1);
    batch.push({ verb: 'copy', pages: { first: 7, count: 2 }, from: 0 });
    const slotThreadCalls = shared.work;
    port.resolve(batch);
    expect(batch.outcomeOf(0)).toBe('installed');
    for (const page of [7, 8]) {
      expect(isSet(page)).toEqual(Array(basePages).fill(false));
      expect(memory.bytes(page * bytes, bytes).every((byte) => byte === 0x5a)).toBe(true);
      expect(shared.has('mapped', page)).toBe(true);
    }
    for (const page of [6, 9]) expect(isSet(page)).toEqual(Array(basePages).fill(true));
    expect(shared.awaitCompletion(0)).toBe(0); // the vCPU goes on
    expect(shared.work, 'the slot thread has nothing to do').toBe(slotThreadCalls);
  },
);

test('userfault-bitmap: pages are unmapped: the flag is cleared and set', () => {
  const { region, bits, isSet } = rig(1);
  const seen: { slot: number; flags: number | undefined; length: number }[] = [];
  const vm: SlotVm = {
    trySetSlot: ({ slot, flags, length }: KvmSlot) => {
      seen.push({ slot, flags, length });
      return 0;
    },
    dirtyLog: () => {},
  };
  const slots = new UserfaultSlots(vm, [region], 16, FLAG, [bits.address]);
  slots.start();
  slots.map({ first: 3, count: 2 });
  expect([isSet(2), isSet(3), isSet(4), isSet(5)]).toEqual([[true], [false], [false], [true]]);
  slots.vacate({ first: 4, count: 1 });
  expect([isSet(3), isSet(4)]).toEqual([[false], [true]]);
  const length = PAGES * pageSize();
  expect(seen).toEqual([
    { slot: 16, flags: FLAG, length },
    { slot: 16, flags: 0, length },
    { slot: 16, flags: FLAG, length },
  ]);
});

test('userfault-bitmap: the kernel refuses the flag: NOT_SUPPORTED', () => {
  const { region, bits } = rig(1);
  const vm: SlotVm = { trySetSlot: ({ flags = 0 }) => (flags === 0 ? 0 : -ERRNO.EINVAL), dirtyLog: () => {} };
  const slots = new UserfaultSlots(vm, [region], 16, FLAG, [bits.address]);
  expect(() => slots.start()).toThrow(expect.objectContaining({ code: 'NOT_SUPPORTED' }) as Error);
});
