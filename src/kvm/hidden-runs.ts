import { type PageIndex, type PageRange } from '../api/address.js';
import { chunksAround, regionOf, type SlotRegion } from './slot-region.js';

/**
 * The runs of pages that one change of slots shows to the guest. Each is made of whole chunks of one region that
 * are complete and not shown yet, and no two have a page in common: the second would find the first's pages live.
 */
export class HiddenRuns {
  readonly #regions: readonly SlotRegion[];
  readonly #isHidden: (chunk: PageRange) => boolean;
  readonly #runs: PageRange[] = [];

  /** `isHidden`: whether a chunk is complete and not shown yet. */
  constructor(regions: readonly SlotRegion[], isHidden: (chunk: PageRange) => boolean) {
    this.#regions = regions;
    this.#isHidden = isHidden;
  }

  get all(): readonly PageRange[] {
    return this.#runs;
  }

  has(page: PageIndex): boolean {
    return this.#runs.some(({ first, count }) => page >= first && page < first + count);
  }

  /**
   * Adds the run around a page, of up to `longest` pages or one chunk: neighbours come for the price of a deletion
   * each. Precondition: the page's chunk is hidden, and in no run.
   */
  add(page: PageIndex, longest: number): PageRange {
    const region = regionOf(this.#regions, page)!;
    const chunkOf = (of: PageIndex): PageRange => chunksAround(region, { first: of, count: 1 });
    const own = chunkOf(page);
    let { first } = own;
    let end = first + own.count;
    const joins = (chunk: PageRange): boolean =>
      end - first + chunk.count <= longest && !this.has(chunk.first) && this.#isHidden(chunk);
    while (end < region.page + region.count && joins(chunkOf(end))) end += chunkOf(end).count;
    while (first > region.page && joins(chunkOf(first - 1))) first = chunkOf(first - 1).first;
    const run = { first, count: end - first };
    this.#runs.push(run);
    return run;
  }
}
