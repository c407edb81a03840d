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
import { discardPagesOf } from '../linux/discard-memory.js';
import { type PagedRegion } from './paged-memory.js';

/**
 * Makes every page of the memory either missing or recorded in the page states. Precondition: memory that a
 * userfaultfd watches (`watched`) is registered already, so that no page appears unnoticed after the scan;
 * that userfaultfd reports no events that have to be waited for.
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
    for (const pages of discards) discardPagesOf(region, placeInMemory(paged), pages);
    // Accessors that came since wait, so a page that is found now was not discarded.
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

/** A reservation over which files will be mapped must have no pages of its own. */
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
 * No other thread uses memory that was mapped here; but with mlockall(2) it is populated when it is mapped.
 */
const placeOf = ({ length, pageSize, hva }: Region, address: number): FoundMemoryOptions => ({
  address,
  length: Number(length),
  pageSize,
  shared: false,
  fresh: hva === undefined,
});

/** Where a region's contents are: for a guest_memfd, the alias mapping through which it is populated. */
function livesIn(region: Region, { slot, drop, alias, hugeUnit }: PagedRegion): FoundMemoryOptions {
  const file = drop.kind === 'file' ? { fd: drop.fd, offset: drop.fileOffset } : undefined;
  const shared = alias === undefined && region.memory !== 'anonymous';
  const place = placeOf(region, alias ?? slot.address);
  return { ...place, hugePageSize: hugeUnit, shared, file, fresh: place.fresh || alias !== undefined };
}

/** Scans memory once and records what it finds. Returns the pages to discard. */
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

const placeInMemory = ({ slot, place: { file } }: PagedRegion): Parameters<typeof discardPagesOf>[1] => ({
  address: slot.address,
  file: file && { fd: file.fd, offset: Number(file.offset) },
});
