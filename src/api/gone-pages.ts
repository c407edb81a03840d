import { type PageIndex, type PageRange } from './address.js';

/** More than one: a fault of an access may be judged after that access was woken, and is no asking again. */
const MOST_ROUNDS = 3;

/**
 * Pages that were found to have no memory, and how often accesses asked for each since. Whoever reaches memory through
 * the mapping learns by itself that it is gone, once woken; whoever reaches it otherwise (a vCPU whose page is missing
 * to KVM before the mapping is looked at) would ask, be woken and ask again for ever.
 */
export class GonePages {
  readonly #rounds = new Map<PageIndex, number>();

  /** An access asks for a page that is held to be gone. Whether that may still be found otherwise: not often, and then not until {@link back}. */
  mayBeBack(page: PageIndex): boolean {
    const rounds = (this.#rounds.get(page) ?? 0) + 1;
    if (rounds > MOST_ROUNDS) return false;
    this.#rounds.set(page, rounds);
    return true;
  }

  /** There is memory again, or whoever changes it says so. */
  back({ first, count }: PageRange): void {
    if (this.#rounds.size === 0) return;
    for (const page of this.#rounds.keys())
      if (page >= first && page < first + count) this.#rounds.delete(page);
  }
}
