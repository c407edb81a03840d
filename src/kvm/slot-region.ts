import { type PageIndex, type PageRange } from '../api/address.js';

/**
 * One region as the slot thread and the exit handlers know it. Cloneable. Addresses are numbers below 2^52.
 */
export interface SlotRegion {
  readonly page: PageIndex;
  readonly count: number;
  /** Bytes of a page. */
  readonly pageSize: number;
  /** Pages that are mapped and unmapped together: the unit of memslot updates. */
  readonly chunk: number;
  readonly gpa: number;
  /** `userspace_addr` of a mapped slot. */
  readonly address: number;
  /** `userspace_addr` while pages are missing: where KVM's own accesses go. */
  readonly whileMissing: number;
  /** The guest_memfd of mapped slots, or -1 for plain memory, and where in it the region begins. */
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

/** A range of a region's pages, extended to whole chunks. The last chunk of a region may be shorter. */
export function chunksAround({ page, count, chunk }: SlotRegion, pages: PageRange): PageRange {
  const first = page + Math.floor((pages.first - page) / chunk) * chunk;
  const end = page + Math.min(count, Math.ceil((pages.first + pages.count - page) / chunk) * chunk);
  return { first, count: end - first };
}

export const chunksOf = ({ count, chunk }: SlotRegion): number => Math.ceil(count / chunk);

/**
 * The smallest chunk in pages, a power of two, that divides the regions into at most `slots` chunks;
 * undefined if there are more regions than slots.
 */
export function chunkFor(
  regions: readonly { readonly pageCount: number }[],
  slots: number,
): number | undefined {
  if (regions.length > slots) return undefined;
  for (let chunk = 1; ; chunk *= 2) {
    const chunks = regions.reduce((sum, { pageCount }) => sum + Math.ceil(pageCount / chunk), 0);
    if (chunks <= slots) return chunk;
  }
}
