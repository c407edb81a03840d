import { type PageRange } from '../api/address.js';
import { settleContents } from '../api/contents.js';
import { type MemoryLayout, type Region } from '../api/layout.js';
import { PageStates } from '../api/page-states.js';
import { discardMemory, FoundMemory, type FoundMemoryOptions } from '../linux/index.js';
import { type PagedRegion } from './paged-memory.js';

/**
 * Sees to it that every page of the memory is missing, or known to the states. Precondition: it is watched
 * already, where a userfaultfd watches it, so that no page comes unheard of after the look; that userfaultfd
 * has no events to wait for.
 * Errors: NOT_EMPTY, PAGE_VANISHED; what {@link FoundMemory} and discarding throw.
 */
export function settleRegions(
  layout: MemoryLayout,
  regions: readonly PagedRegion[],
  states: PageStates,
): void {
  for (const [i, region] of layout.regions.entries()) {
    const paged = regions[i]!;
    const lives = livesIn(region, paged);
    const isOurs = region.hva === undefined && region.file === undefined;
    const choice = isOurs ? 'discard' : region.contents;
    const discards = settleContents(region, runsOf(region, lives), states, choice);
    for (const pages of discards) discard(region, paged, pages);
    if (paged.alias !== undefined) settleReservation(layout.pageCount, region, paged);
  }
}

/** Where files are to be mapped over the reservation, nothing of its own may show. */
function settleReservation(pages: number, region: Region, { slot }: PagedRegion): void {
  const runs = runsOf(region, placeOf(region, slot.address));
  const isRefused = region.hva !== undefined && (region.contents ?? 'refuse') === 'refuse';
  const nothing = PageStates.create(pages);
  const choice = isRefused ? 'refuse' : 'discard';
  for (const { first, count } of settleContents(region, runs, nothing, choice)) {
    const address = slot.address + (first - region.firstPage) * region.pageSize;
    discardMemory({ address, length: count * region.pageSize, memory: 'anonymous' });
  }
}

/**
 * Memory that was mapped here nobody else knows of; but where memory is locked (mlockall(2)) it is filled as
 * it is mapped.
 */
const placeOf = ({ length, pageSize, hva }: Region, address: number): FoundMemoryOptions => ({
  address,
  length: Number(length),
  pageSize,
  shared: false,
  fresh: hva === undefined,
});

/** Where contents are to be found: of a guest_memfd, in the mapping by which it is filled. */
function livesIn(region: Region, { slot, drop, alias, hugeUnit }: PagedRegion): FoundMemoryOptions {
  const file = drop.kind === 'file' ? { fd: drop.fd, offset: drop.fileOffset } : undefined;
  const shared = alias === undefined && region.memory !== 'anonymous';
  return { ...placeOf(region, alias ?? slot.address), hugePageSize: hugeUnit, shared, file };
}

function runsOf({ firstPage, pageSize }: Region, options: FoundMemoryOptions): readonly PageRange[] {
  const found = new FoundMemory(options);
  try {
    return found.runs().map(({ start, length }) => ({
      first: firstPage + start / pageSize,
      count: length / pageSize,
    }));
  } finally {
    found.close();
  }
}

function discard(region: Region, { slot, place }: PagedRegion, { first, count }: PageRange): void {
  const skipped = (first - region.firstPage) * region.pageSize;
  const { file } = place;
  discardMemory({
    address: slot.address + skipped,
    length: count * region.pageSize,
    memory: region.memory,
    file: file && { fd: file.fd, offset: Number(file.offset) + skipped },
  });
}
