import { type PageIndex } from '../api/address.js';

/** One region as the slot thread and the gates know it. Cloneable. Addresses are numbers below 2^52. */
export interface SlotRegion {
  readonly page: PageIndex;
  readonly count: number;
  /** Bytes of a page: the unit in which slots are changed. */
  readonly pageSize: number;
  readonly gpa: number;
  /** What a live slot shows. */
  readonly address: number;
  /** `userspace_addr` while pages are missing: where KVM's own accesses go then. */
  readonly whileMissing: number;
  /** The live guest_memfd, or -1 for plain memory, and where in it the region begins. */
  readonly guestMemfd: number;
  readonly guestMemfdOffset: number;
}

export const regionOf = (regions: readonly SlotRegion[], page: PageIndex): SlotRegion | undefined =>
  regions.find((region) => page >= region.page && page < region.page + region.count);

/** The page at a guest-physical address, or -1 outside every region. */
export function pageAt(regions: readonly SlotRegion[], gpa: number): PageIndex {
  for (const { gpa: start, page, count, pageSize } of regions) {
    if (gpa >= start && gpa < start + count * pageSize) return page + Math.floor((gpa - start) / pageSize);
  }
  return -1;
}
