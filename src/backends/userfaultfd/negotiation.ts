import { type MemoryKind } from '../../api/layout.js';
import { DemandPagingError } from '../../api/error.js';
import { UFFD_FEATURE, UFFD_REGISTER_MODE, uffdFeatureNames } from '../../linux/index.js';
import { type UserfaultfdChoice } from './options.js';

const F = UFFD_FEATURE;

const EVENTS = {
  remove: F.EVENT_REMOVE,
  unmap: F.EVENT_UNMAP,
  remap: F.EVENT_REMAP,
  fork: F.EVENT_FORK,
} as const;

/** Features that a choice cannot do without, for memory of these kinds. */
export function neededFeatures(choice: UserfaultfdChoice, kinds: ReadonlySet<MemoryKind>): number {
  let mask = 0;
  for (const event of choice.events) mask |= EVENTS[event];
  if (choice.sigbus) mask |= F.SIGBUS;
  if (kinds.has('shmem')) mask |= F.MISSING_SHMEM;
  if (kinds.has('hugetlb')) mask |= F.MISSING_HUGETLBFS;
  if (choice.faults.includes('minor')) {
    if (kinds.has('shmem')) mask |= F.MINOR_SHMEM;
    if (kinds.has('hugetlb')) mask |= F.MINOR_HUGETLBFS;
  }
  if (choice.faults.includes('write-protect')) {
    mask |= F.PAGEFAULT_FLAG_WP;
    if (kinds.has('shmem') || kinds.has('hugetlb')) mask |= F.WP_HUGETLBFS_SHMEM;
  }
  if (choice.asyncWriteProtect) mask |= F.WP_ASYNC | F.WP_UNPOPULATED;
  if (choice.faults.includes('rwp')) mask |= F.RWP;
  if (choice.install === 'move') mask |= F.MOVE;
  return mask;
}

/** What is taken along where the kernel has it. */
const WELCOME = F.THREAD_ID | F.POISON | F.MOVE;

/**
 * The features to ask for, of those offered; bits this version does not know are ignored. Throws
 * NOT_SUPPORTED by name.
 */
export function chooseFeatures(
  choice: UserfaultfdChoice,
  kinds: ReadonlySet<MemoryKind>,
  offered: bigint,
): number {
  const needed = neededFeatures(choice, kinds);
  const lacking = uffdFeatureNames(BigInt(needed) & ~offered);
  if (lacking.length > 0) {
    throw new DemandPagingError('NOT_SUPPORTED', `this kernel's userfaultfd lacks ${lacking.join(', ')}`, {
      hint: lacking.includes('RWP') ? 'RWP needs Linux 7.3' : 'a newer kernel, or fewer options',
    });
  }
  return needed | (WELCOME & Number(offered & BigInt(WELCOME)));
}

/** The mode of UFFDIO_REGISTER. */
export function registerMode(choice: UserfaultfdChoice): number {
  const { MISSING, MINOR, WP, RWP } = UFFD_REGISTER_MODE;
  let mode: number = MISSING;
  if (choice.faults.includes('minor')) mode |= MINOR;
  if (choice.faults.includes('write-protect')) mode |= WP;
  if (choice.faults.includes('rwp')) mode |= RWP;
  return mode;
}
