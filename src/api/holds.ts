import { type PageRange } from './address.js';
import { DemandPagingError } from './error.js';

/** Pages that must stay as they are until {@link release}d. */
export interface Hold extends Disposable {
  readonly ranges: readonly PageRange[];
  /** Idempotent. */
  release(): void;
}

/**
 * The holds of a pager: while one covers a page, the pager refuses to discard, freeze or poison it
 * (PAGE_HELD). What other threads and processes do to the mapping directly cannot be refused.
 */
export class Holds {
  readonly #held = new Set<readonly PageRange[]>();

  hold(ranges: readonly PageRange[]): Hold {
    const own = [...ranges];
    this.#held.add(own);
    const release = (): void => void this.#held.delete(own);
    return { ranges: own, release, [Symbol.dispose]: release };
  }

  /** Throws PAGE_HELD if any of the pages is held. */
  check(ranges: readonly PageRange[], what: string): void {
    for (const held of this.#held) {
      for (const { first, count } of held) {
        const hit = ranges.find((range) => range.first < first + count && first < range.first + range.count);
        if (hit)
          throw new DemandPagingError(
            'PAGE_HELD',
            `cannot ${what} page ${Math.max(hit.first, first)}: it is held`,
            { hint: 'Release the hold first' },
          );
      }
    }
  }
}
