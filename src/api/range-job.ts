import { type PageIndex, type PageRange } from './address.js';
import { type DemandPagingError } from './error.js';
import { type PrefetchResult } from './resolver-protocol.js';
import { type PageStates } from './page-states.js';

/**
 * A request for many pages, worked off chunk by chunk. A `prefetch` is done when every page was looked at and
 * what was fetched has arrived; an `ensured` job when every page was seen present.
 */
export class RangeJob {
  readonly #ranges: PageRange[];
  /** Where the next chunk starts. */
  #range = 0;
  #at: PageIndex;
  /** Up to where an `ensured` job has seen every page present. */
  #seenRange = 0;
  #seenAt: PageIndex;
  #outstanding = 0;
  #taken = 0;
  #skipped = 0;
  #settledAlready = false;

  constructor(
    ranges: readonly PageRange[],
    readonly why: 'ensured' | 'prefetch',
    /** Called once, when the job is over. */
    private readonly over: (result: PrefetchResult | DemandPagingError) => void,
  ) {
    this.#ranges = [...ranges];
    this.#at = this.#seenAt = ranges[0]?.first ?? 0;
  }

  /** No chunk is left to take. */
  get exhausted(): boolean {
    return this.#range >= this.#ranges.length;
  }

  /** The end of the range that the next chunk lies in. Precondition: not exhausted. */
  get end(): PageIndex {
    const { first, count } = this.#ranges[this.#range]!;
    return first + count;
  }

  /** The next page not present, or undefined if that exhausted the job. */
  next(states: PageStates): PageIndex | undefined {
    while (!this.exhausted) {
      const page = states.nextMissing(this.#at, this.end);
      this.#skipped += page - this.#at;
      if (page < this.end) return (this.#at = page);
      this.#advanceRange();
    }
    return undefined;
  }

  /** Leaves pages aside. */
  pass(pages: number): void {
    this.#skipped += pages;
    this.#step(pages);
  }

  /** Takes a chunk, whose fetch will be {@link settled}. */
  take(pages: number): void {
    this.#taken += pages;
    this.#outstanding++;
    this.#step(pages);
  }

  /** A chunk's fetch ended; `missed` pages of it did not come. */
  settled(missed = 0): void {
    this.#outstanding--;
    this.#taken -= missed;
    this.#skipped += missed;
  }

  /**
   * A chunk's fetch was cancelled because of some of its pages. A prefetch looks at the `rest` of the chunk
   * once more, after everything else; an `ensured` job is {@link rewind}ed.
   */
  cancelled(pages: PageRange, rest: readonly PageRange[]): void {
    this.settled(pages.count);
    if (this.why !== 'prefetch') return;
    const wasExhausted = this.exhausted;
    for (const range of rest) {
      this.#ranges.push(range);
      this.#skipped -= range.count;
    }
    if (wasExhausted) this.#at = this.#ranges[this.#range]?.first ?? this.#at;
  }

  /** Pages may have gone missing again: an `ensured` job looks from where it has seen all present. */
  rewind(): void {
    if (this.why !== 'ensured' || this.#seenRange >= this.#ranges.length) return;
    this.#range = this.#seenRange;
    this.#at = this.#seenAt;
  }

  /** Whether any page of `pages` is among those asked for. */
  covers(pages: PageRange): boolean {
    const end = pages.first + pages.count;
    return this.#ranges.some(({ first, count }) => first < end && pages.first < first + count);
  }

  /** Ends the job if all is done; says whether it is over. */
  finish(states: PageStates): boolean {
    if (this.#settledAlready) return true;
    if (this.why === 'prefetch') {
      if (!this.exhausted) this.next(states); // present pages need no chunk
      if (!this.exhausted || this.#outstanding > 0) return false;
    } else if (!this.#seenAll(states)) return false;
    this.#settledAlready = true;
    this.over({ installedPages: this.#taken, skippedPages: this.#skipped });
    return true;
  }

  reject(error: DemandPagingError): void {
    if (this.#settledAlready) return;
    this.#settledAlready = true;
    this.over(error);
  }

  /** Moves over pages seen present; each page is looked at once, so waiting costs nothing per turn. */
  #seenAll(states: PageStates): boolean {
    for (; this.#seenRange < this.#ranges.length; this.#seenRange++) {
      const { first, count } = this.#ranges[this.#seenRange]!;
      this.#seenAt = states.nextMissing(Math.max(this.#seenAt, first), first + count);
      if (this.#seenAt < first + count) return false;
      this.#seenAt = this.#ranges[this.#seenRange + 1]?.first ?? this.#seenAt;
    }
    return true;
  }

  #step(pages: number): void {
    this.#at += pages;
    if (this.#at >= this.end) this.#advanceRange();
  }

  #advanceRange(): void {
    this.#range++;
    this.#at = this.#ranges[this.#range]?.first ?? this.#at;
  }
}
