import { KvmVm } from '../linux/index.js';
import { type SharedVcpuState } from './shared-vcpu-state.js';
import { VcpuPause } from './pause.js';

export interface Sweep {
  readonly vm: number;
  readonly run_bytes: number;
  readonly slots: { readonly first: number; readonly count: number };
  /** Whether the vCPUs use our exit handlers; otherwise they cannot be paused from here. */
  readonly pausable: boolean;
}

/**
 * Crash cleanup: deletes the memslots that a crashed slot thread has left, since their memory is about to go.
 * Blocks: until the vCPUs are paused.
 */
export function sweepSlots(shared: SharedVcpuState, { vm, run_bytes, slots, pausable }: Sweep): void {
  using machine = KvmVm.borrow(vm, run_bytes);
  const sweep = (): void => {
    // KVM refuses a slot that does not exist (EINVAL), which does no harm.
    for (let slot = slots.first; slot < slots.first + slots.count; slot++)
      machine.trySetSlot({ slot, gpa: 0, length: 0, userspace: 0 });
  };
  if (!pausable) return sweep();
  const pause = new VcpuPause(shared, run_bytes);
  try {
    pause.quiesce(sweep);
  } finally {
    pause.close();
  }
}
