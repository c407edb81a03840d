import { KvmVm } from '../linux/index.js';
import { type ExitBoard } from './exit-board.js';
import { GatePause } from './pause.js';

export interface Sweep {
  readonly vm: number;
  readonly run_bytes: number;
  readonly slots: { readonly first: number; readonly count: number };
  /** Whether the vCPUs pass through gates; else nobody can stop them from here. */
  readonly gates: boolean;
}

/** Deletes the slots that a slot thread left which died: their memory is about to go. Blocks: until the vCPUs stand. */
export function sweepSlots(board: ExitBoard, { vm, run_bytes, slots, gates }: Sweep): void {
  using machine = KvmVm.borrow(vm, run_bytes);
  const sweep = (): void => {
    // A slot that does not exist is refused (EINVAL), which is as good.
    for (let slot = slots.first; slot < slots.first + slots.count; slot++)
      machine.trySetSlot({ slot, gpa: 0, length: 0, userspace: 0 });
  };
  if (!gates) return sweep();
  const pause = new GatePause(board, run_bytes);
  try {
    pause.quiesce(sweep);
  } finally {
    pause.close();
  }
}
