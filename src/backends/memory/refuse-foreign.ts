import { DemandPagingError, type MemoryKind, type RegionSpec } from '../../api/index.js';

export const KINDS: readonly MemoryKind[] = ['anonymous', 'shmem', 'hugetlb'];

/** Refuses what the model has no memory for. Throws NOT_SUPPORTED. */
export function refuseForeign(regions: readonly RegionSpec[]): void {
  for (const { gpa, length, memory, hva, file } of regions) {
    const range = { start: gpa as bigint, length };
    if (!KINDS.includes(memory))
      throw new DemandPagingError('NOT_SUPPORTED', `the memory backend has no ${memory} memory`, { range });
    if (hva !== undefined || file !== undefined) {
      throw new DemandPagingError('NOT_SUPPORTED', 'the memory backend makes its own memory', {
        range,
        hint: 'Leave hva and file out',
      });
    }
  }
}
