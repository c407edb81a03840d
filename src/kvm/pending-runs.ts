import { type PageIndex, type PageRange } from '../api/address.js';
import { chunksAround, regionOf, type SlotRegion } from './slot-region.js';

/**
 * The pending runs that one memslot update maps for the guest. Each consists of whole chunks of one region
 * that are complete and not mapped yet. No two share a page: the second would find the first's pages mapped.
 */
export class PendingRuns {
  readonly #regions: readonly SlotRegion[];
  readonly #isPending: (chunk: PageRange) => boolean;
  readonly #runs: PageRange[] = [];

  /** `isPending`: whether a chunk is complete and not mapped yet. */
  constructor(regions: readonly SlotRegion[], isPending: (chunk: PageRange) => boolean) {
    this.#regions = regions;
    this.#isPending = isPending;
  }

  get all(): readonly PageRange[] {
    return this.#runs;
  }

  has(page: PageIndex): boolean {
    return this.#runs.some(({ first, count }) => page >= first && page < first + count);
  }

  /**
   * Adds the run around a page, of up to `longest` pages or one chunk: each further chunk costs only a slot
   * deletion.
   * Precondition: the page's chunk is pending and in no run.
   */
  add(page: PageIndex, longest: number): PageRange {
    const region = regionOf(this.#regions, page)!;
    const chunkOf = (of: PageIndex): PageRange => chunksAround(region, { first: of, count: 1 });
    const own = chunkOf(page);
    let { first } = own;
    let end = first + own.count;
    const joins = (chunk: PageRange): boolean =>
      end - first + chunk.count <= longest && !this.has(chunk.first) && this.#isPending(chunk);
    while (end < region.page + region.count && joins(chunkOf(end))) end += chunkOf(end).count;
    while (first > region.page && joins(chunkOf(first - 1))) first = chunkOf(first - 1).first;
    const run = { first, count: end - first };
    this.#runs.push(run);
    return run;
  }
}
