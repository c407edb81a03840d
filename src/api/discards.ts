import { type PageIndex, type PageRange } from './address.js';
import { intersection, within } from './page-range.js';

/**
 * What the next access to a discarded page finds. `zero`: zeros, whatever the source has. `refetch`: the page
 * is missing, and its contents are fetched from the source again.
 */
export type AfterDiscard = 'zero' | 'refetch';

export const AFTER_DISCARD: readonly AfterDiscard[] = ['zero', 'refetch'];

export interface DiscardOptions {
  /** No default: either is data loss where the other was meant. */
  readonly then: AfterDiscard;
}

/** Pages to discard, and how often the kernel announces their removal. */
export interface DiscardRange extends PageRange {
  /** See {@link Attachment.removeEventsPerDiscard}. Default 1. */
  readonly announcements?: number;
}

/** A range that the control thread is discarding. */
interface Discarding {
  readonly pages: PageRange;
  readonly announcements: number;
  /**
   * Parts of it whose `remove` event was read. A part of which more events are read was removed by another
   * thread, too.
   */
  readonly announced: PageRange[];
}

const samePages = (a: PageRange, b: PageRange): boolean => a.first === b.first && a.count === b.count;

/**
 * The discards in progress on the control thread: between begin and end nothing may be installed in their
 * pages.
 */
export class Discards {
  readonly #active: Discarding[] = [];

  /** No discard is in progress. */
  none(): boolean {
    return this.#active.length === 0;
  }

  covers(page: PageIndex): boolean {
    return this.#active.length > 0 && this.#active.some(({ pages }) => within(page, pages));
  }

  /**
   * A test of whether the discards of these pages that are in progress now have all ended; later ones do not
   * count.
   */
  endOf(pages: PageRange): () => boolean {
    const own = this.#active.filter((discard) => intersection(discard.pages, pages).length > 0);
    return () => !own.some((discard) => this.#active.includes(discard));
  }

  /** Removes every entry. */
  clear(): void {
    this.#active.length = 0;
  }

  /** Splits a range into runs of pages that are all being discarded, and runs of which none is. */
  partsOf({ first, count }: PageRange): readonly (PageRange & { readonly held: boolean })[] {
    if (this.none()) return [{ first, count, held: false }];
    const parts: (PageRange & { readonly held: boolean })[] = [];
    for (let at = first; at < first + count;) {
      const held = this.covers(at);
      let end = at + 1;
      while (end < first + count && this.covers(end) === held) end++;
      parts.push({ first: at, count: end - at, held });
      at = end;
    }
    return parts;
  }

  begin(pages: PageRange, announcements = 1): void {
    this.#active.push({ pages, announcements, announced: [] });
  }

  /**
   * Ends one discard of exactly these pages: the same pages may be in two discards, and the other goes on.
   */
  end(pages: PageRange): void {
    const announced = this.#active.findIndex(
      (discard) => samePages(discard.pages, pages) && discard.announced[0],
    );
    const ended =
      announced >= 0 ? announced : this.#active.findIndex((discard) => samePages(discard.pages, pages));
    if (ended >= 0) this.#active.splice(ended, 1);
  }

  /**
   * Assigns a `remove` event to the discards in progress. Returns the parts of it that belong to none of
   * them: another thread removed those. What the control thread discards is no removal: the discard says what
   * becomes of it.
   */
  announce(pages: PageRange): PageRange[] {
    const external: PageRange[] = [];
    const end = pages.first + pages.count;
    for (let at = pages.first; at < end;) {
      const part = { first: at, count: this.#nextBorder(at, end) - at };
      const discard = this.#announcedBy(pages, at);
      if (discard) discard.announced.push(part);
      else external.push(part);
      at += part.count;
    }
    return external;
  }

  /**
   * The discard in progress that an event belongs to, at page `at`. One of exactly the event's pages comes
   * first: of discards that overlap, each is announced by its own event.
   */
  #announcedBy(pages: PageRange, at: PageIndex): Discarding | undefined {
    const open = this.#active.filter(
      ({ pages: own, announcements, announced }) =>
        within(at, own) && announced.filter((known) => within(at, known)).length < announcements,
    );
    return open.find((discard) => samePages(discard.pages, pages)) ?? open[0];
  }

  /** The first page after `from` at which a discard, or a part of one that was announced, begins or ends. */
  #nextBorder(from: PageIndex, end: PageIndex): PageIndex {
    let border = end;
    for (const { pages, announced } of this.#active) {
      for (const { first, count } of [pages, ...announced]) {
        for (const edge of [first, first + count]) if (edge > from && edge < border) border = edge;
      }
    }
    return border;
  }
}
