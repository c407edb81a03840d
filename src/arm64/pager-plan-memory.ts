import {
  DemandPagingError,
  type Errno,
  type Gpa,
  type GpaRange,
  type GuestMemory,
  type Hold,
  WINDOW_BYTES,
} from '../api/index.js';
import { EFAULT } from './errno.js';
import type { PlanMemory } from './plan-memory.js';

/** What a plan needs of a pager; `Pager` has it. */
export interface HoldingPager {
  readonly memory: Pick<GuestMemory, 'isPresent' | 'readSync' | 'layout'> | undefined;
  hold(ranges: readonly GpaRange[]): Promise<Hold>;
}

/**
 * The memory of a pager, for planning. Its `hold` covers a page before it is brought, so arrival and
 * hold are one. A page that is poisoned or unavailable is an EFAULT of that page, as the kernel's own
 * access would meet; whatever else the pager rejects with rejects the plan.
 * Preconditions: the pager pages memory of this process (TypeError otherwise).
 */
export function planMemoryOf(pager: HoldingPager): PlanMemory {
  const { memory } = pager;
  if (memory === undefined) throw new TypeError('the pager has no memory in this address space');
  const holds = new Map<Gpa, Hold>();
  const rangeOf = (page: Gpa): GpaRange => ({ start: page, length: BigInt(WINDOW_BYTES) });

  const fetchOne = async (page: Gpa): Promise<Uint8Array | Errno> => {
    try {
      const hold = await pager.hold([rangeOf(page)]);
      holds.set(page, hold);
      return memory.readSync(page, WINDOW_BYTES);
    } catch (error) {
      release([page]);
      const failed =
        error instanceof DemandPagingError && ['PAGE_FAILED', 'PAGE_POISONED'].includes(error.code);
      if (failed) return EFAULT;
      throw error;
    }
  };
  const release = (pages: readonly Gpa[]): void => {
    for (const page of pages) {
      holds.get(page)?.release();
      holds.delete(page);
    }
  };
  return {
    visible: (page) => memory.layout.regionAt(page) !== undefined,
    present: (page) => memory.isPresent(rangeOf(page)),
    fetch: async (pages) => {
      const results = await Promise.allSettled(pages.map(fetchOne));
      const failure = results.find((result) => result.status === 'rejected');
      if (failure !== undefined) {
        release(pages); // all of the batch arrived by now; a rejected fetch holds nothing
        throw failure.reason;
      }
      return results.map((result) => (result as PromiseFulfilledResult<Uint8Array | Errno>).value);
    },
    release,
  };
}
