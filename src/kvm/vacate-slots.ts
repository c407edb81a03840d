import { DemandPagingError } from '../api/error.js';
import { GUEST_MEMFD_SHARED, type KvmVm, raw } from '../linux/index.js';
import { TESTED_BYTES, type SlotVerification } from './slot-verification.js';

/** Files tried: a process would have to be started in the middle of each attempt. */
const TRIES = 8;

/**
 * Vacates slots: binds them to a guest_memfd of `bytes` and closes it, so that a guest access exits. The
 * verification then tests whether the file is gone. A process that is forked in between holds the file: until
 * its execve(2), which takes up to a second on a loaded machine, or for as long as it lives, because KVM
 * returns the descriptor without close-on-exec. In that case the slots are bound to another file, which
 * processes forked before do not hold.
 *
 * `bind` is called with each file; `again`: the slots are bound to the file before it. Blocks: for memslot
 * operations, and briefly for each file that is held. Errors: COVERAGE_GAP if every file was held, KERNEL,
 * and what `bind` throws.
 */
export function vacateSlots(
  vm: KvmVm,
  bytes: number,
  verification: SlotVerification | undefined,
  bind: (file: number, again: boolean) => void,
): void {
  for (let attempt = 1; ; attempt++) {
    const file = vm.createGuestMemfd(bytes + TESTED_BYTES, GUEST_MEMFD_SHARED);
    try {
      bind(file, attempt > 1);
      verification?.bindSlot(file, bytes);
    } finally {
      raw.close(file);
    }
    const found = verification?.check();
    if (found === undefined) return;
    if (attempt === TRIES) throw notVacated(found);
  }
}

const notVacated = (found: string): DemandPagingError =>
  new DemandPagingError(
    'COVERAGE_GAP',
    `a memslot's guest_memfd is still open, so the slot is not vacated: the guest access ended with ${found}`,
    {
      hint: `Each of ${TRIES} files was held by a process started meanwhile: start none while the backend attaches or discards pages`,
    },
  );
