import { type PageIndex, type PageRange } from './address.js';

/** More than one: a fault of an access may be judged after that access was woken, and is no asking again. */
const MOST_ROUNDS = 3;

/**
 * Pages that were found to have no memory, and how many faults there have been for each since. An accessor
 * that reaches memory through the mapping, once woken, finds by itself that it is unmapped; one that reaches
 * it otherwise (a vCPU whose page is missing to KVM before the mapping is looked at) would fault, be woken
 * and fault again without end.
 */
export class UnmappedPages {
  readonly #rounds = new Map<PageIndex, number>();

  /**
   * A fault for a page whose state is unmapped. Whether the page may still be mapped again: for the first few
   * faults, and then not until {@link back}.
   */
  mayBeBack(page: PageIndex): boolean {
    const rounds = (this.#rounds.get(page) ?? 0) + 1;
    if (rounds > MOST_ROUNDS) return false;
    this.#rounds.set(page, rounds);
    return true;
  }

  /** These pages have memory again, or the thread that maps it says so. */
  back({ first, count }: PageRange): void {
    if (this.#rounds.size === 0) return;
    for (const page of this.#rounds.keys())
      if (page >= first && page < first + count) this.#rounds.delete(page);
  }
}
