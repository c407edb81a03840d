import { type PageRange } from '../../api/address.js';

/** Shards meet where page states can be shared without two writers to a block (see PageStates). */
const BOUNDARY_PAGES = 4096;

/**
 * Divides `pageCount` pages among at most `shards` resolvers, as evenly as the boundaries allow; none is
 * empty.
 */
export function divide(pageCount: number, shards: number): PageRange[] {
  const ranges: PageRange[] = [];
  let first = 0;
  for (let shard = 1; shard <= shards && first < pageCount; shard++) {
    const ideal = Math.round((pageCount * shard) / shards / BOUNDARY_PAGES) * BOUNDARY_PAGES;
    const end = shard === shards ? pageCount : Math.min(ideal, pageCount);
    if (end <= first) continue;
    ranges.push({ first, count: end - first });
    first = end;
  }
  return ranges;
}
