import { afterEach, expect, test, vi } from 'vitest';
import { SharedVcpuState } from '../../src/kvm/shared-vcpu-state.js';
import { openVcpuExitHandler } from '../../src/kvm/exit-handler.js';
import { type SlotRegion } from '../../src/kvm/slot-region.js';
import { ERRNO, EventFd, KVM_EXIT, type KvmRun } from '../../src/linux/index.js';

const PAGE = 4096;
const GPA = 0x20_0000;
const REGION: SlotRegion = {
  page: 0,
  count: 8,
  pageSize: PAGE,
  chunk: 1,
  gpa: GPA,
  address: 0,
  whileMissing: 0,
  guestMemfd: -1,
  guestMemfdOffset: 0,
};

afterEach(() => void vi.restoreAllMocks());

/** Handles a fault on page 3, with something that happens just before the fault is raised. */
function faultWith(meanwhile: (shared: SharedVcpuState) => void): string {
  using doorbell = EventFd.create();
  const shared = SharedVcpuState.create(8, 1);
  shared.mark('populated', 0, 8, true);
  const token = {
    shared: shared.token,
    regions: [REGION],
    doorbell: doorbell.fd,
    vcpu: 0,
    exitFlag: 0,
    mmio: false,
  };
  const handler = openVcpuExitHandler(token, 1);
  const { raiseFault, awaitCompletion } = SharedVcpuState.prototype;
  vi.spyOn(SharedVcpuState.prototype, 'raiseFault').mockImplementation(function (
    this: SharedVcpuState,
    ...fault
  ) {
    meanwhile(shared);
    raiseFault.apply(this, fault);
  });
  // It would wait for ever on this thread.
  vi.spyOn(SharedVcpuState.prototype, 'awaitCompletion').mockImplementation(function (
    this: SharedVcpuState,
    vcpu,
  ) {
    if (shared.waitsFor(vcpu) >= 0) throw new Error('no thread is left to complete the fault');
    return awaitCompletion.call(this, vcpu);
  });
  const run = { exitReason: KVM_EXIT.MEMORY_FAULT, faultFlags: 0, faultGpa: GPA + 3 * PAGE };
  try {
    return handler.onExit(run as unknown as KvmRun, ERRNO.EFAULT);
  } finally {
    handler.close();
  }
}

test('exit handler: a page mapped just before the fault is raised: reenters without waiting', () => {
  expect(faultWith((shared) => shared.mark('mapped', 3, 1, true))).toBe('reenter');
});

test('exit handler: a page discarded just before the fault is raised: reenters and faults again', () => {
  // The discard has ended: it completed the faults that were raised by then.
  expect(faultWith((shared) => shared.mark('populated', 3, 1, false))).toBe('reenter');
});

test('exit handler: a populated page that is not mapped: waits for the slot thread', () => {
  expect(() => faultWith(() => {})).toThrow('no thread is left');
});
