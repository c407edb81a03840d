import { type PageRange } from '../api/address.js';
import { settleFound } from '../api/contents.js';
import { type MemoryLayout, type Region } from '../api/layout.js';
import { PageStates } from '../api/page-states.js';
import {
  checkPlaces,
  discardMemory,
  FoundMemory,
  type FoundMemoryOptions,
  type MemoryPlace,
  ProcessMaps,
} from '../linux/index.js';
import { type PagedRegion } from './paged-memory.js';

/**
 * Sees to it that every page of the memory is missing, or known to the states. Precondition: it is watched
 * already, where a userfaultfd watches it (`watched`), so that no page comes unheard of after the look; that
 * userfaultfd has no events to wait for.
 * Errors: NOT_EMPTY, PAGE_VANISHED; what {@link checkPlaces}, {@link FoundMemory} and discarding throw.
 */
export function settleRegions(
  layout: MemoryLayout,
  regions: readonly PagedRegion[],
  states: PageStates,
  watched: boolean,
): void {
  const others = layout.regions.flatMap((region, i) =>
    isOurs(region) ? [] : [placeIn(region, regions[i]!)],
  );
  checkPlaces(others);
  const maps = others.length > 0 ? ProcessMaps.read() : undefined;
  for (const [i, region] of layout.regions.entries()) {
    const paged = regions[i]!;
    const lives = { ...livesIn(region, paged), maps };
    const discards = look(region, lives, states, isOurs(region) ? 'discard' : region.contents);
    for (const pages of discards) discard(region, paged, pages);
    // What is touched since then waits: what is found now was not discarded.
    if (discards.length > 0 && watched) look(region, lives, states, 'refuse');
    if (paged.alias !== undefined) settleReservation(layout.pageCount, region, paged);
  }
}

const isOurs = ({ hva, file }: Region): boolean => hva === undefined && file === undefined;

function placeIn(
  { gpa, length, memory }: Region,
  { slot, alias, place: { file } }: PagedRegion,
): MemoryPlace {
  return {
    range: { start: gpa, length },
    memory,
    address: alias ?? slot.address,
    file: file && { fd: file.fd, offset: Number(file.offset) },
  };
}

/** Where files are to be mapped over the reservation, nothing of its own may show. */
function settleReservation(pages: number, region: Region, { slot }: PagedRegion): void {
  const isRefused = region.hva !== undefined && (region.contents ?? 'refuse') === 'refuse';
  const nothing = PageStates.create(pages);
  const choice = isRefused ? 'refuse' : 'discard';
  const discards = look(region, placeOf(region, slot.address), nothing, choice);
  for (const { first, count } of discards) {
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
  const place = placeOf(region, alias ?? slot.address);
  return { ...place, hugePageSize: hugeUnit, shared, file, fresh: place.fresh || alias !== undefined };
}

/** Looks at memory once, and settles what it has: the pages to be discarded. */
function look(
  region: Region,
  options: FoundMemoryOptions,
  states: PageStates,
  choice: Region['contents'],
): readonly PageRange[] {
  const found = new FoundMemory(options);
  try {
    return settleFound(region, found, states, choice);
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
