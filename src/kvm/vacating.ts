import { DemandPagingError } from '../api/error.js';
import { GUEST_MEMFD_SHARED, type KvmVm, raw } from '../linux/index.js';
import { BAIT_BYTES, type Canary } from './canary.js';

/** Files tried. Somebody would have to be started in the middle of each. */
const TRIES = 8;

/**
 * Has slots bound to a guest_memfd of `bytes` that is closed then, which vacates them, and has the canary look whether it
 * does. A process that is started in between holds the file: until it executes its program, which takes a loaded
 * machine a second, or, because KVM hands the descriptor out without close-on-exec, for as long as it lives. Then another
 * file is taken, which whoever was started before has not.
 *
 * `bind` is called with each file; `again`: the slots are those of the file before. Blocks: for slot operations, and a
 * moment a file that is held. Errors: COVERAGE_GAP where every file was held, KERNEL, and what `bind` throws.
 */
export function vacating(
  vm: KvmVm,
  bytes: number,
  canary: Canary | undefined,
  bind: (file: number, again: boolean) => void,
): void {
  for (let attempt = 1; ; attempt++) {
    const file = vm.createGuestMemfd(bytes + BAIT_BYTES, GUEST_MEMFD_SHARED);
    try {
      bind(file, attempt > 1);
      canary?.setBait(file, bytes);
    } finally {
      raw.close(file);
    }
    const found = canary?.look();
    if (found === undefined) return;
    if (attempt === TRIES) throw notVacated(found);
  }
}

const notVacated = (found: string): DemandPagingError =>
  new DemandPagingError('COVERAGE_GAP', `a vacated slot is not vacated: the access ended with ${found}`, {
    hint: `Each of ${TRIES} files was held by a process started meanwhile: start none while the backend attaches or drops pages`,
  });
