import {
  hasPageCache,
  type PageIndex,
  type PageStates,
  type Region,
  settleContents,
} from '../../api/index.js';
import { type ModelMemory } from './model-memory.js';

/**
 * Gives the memory what it has before anybody brings a page: mapped if it is anonymous, else in the page
 * cache.
 */
export function putContents(
  memory: ModelMemory,
  contents: (page: PageIndex) => Uint8Array | undefined,
): void {
  for (let page = 0; page < memory.layout.pageCount; page++) {
    const bytes = contents(page);
    if (!bytes) continue;
    const errno = hasPageCache(memory.layout.regionOf(page).memory)
      ? memory.fill(page, bytes)
      : memory.install(page, bytes, false);
    if (errno !== 0) throw new TypeError(`page ${page} cannot have contents: errno ${errno}`);
  }
}

/** Sees to pages that regions have already. Throws NOT_EMPTY, PAGE_VANISHED. */
export function settleModel(memory: ModelMemory, regions: readonly Region[], states: PageStates): void {
  for (const region of regions) {
    const { firstPage, pageCount } = region;
    const found: { first: PageIndex; count: number }[] = [];
    for (let page = firstPage; page < firstPage + pageCount; page++) {
      if (!memory.isResident(page)) continue;
      const last = found.at(-1);
      if (last && last.first + last.count === page) last.count++;
      else found.push({ first: page, count: 1 });
    }
    for (const { first, count } of settleContents(region, found, states))
      for (let page = first; page < first + count; page++) memory.drop(page, 'punch');
  }
}
