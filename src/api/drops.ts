import { type PageIndex, type PageRange } from './address.js';
import { intersection, within } from './page-range.js';

/** Pages to drop, and how often the kernel announces their removal. */
export interface DropRange extends PageRange {
  /** See {@link Attachment.removalsAnnounced}. Default 1. */
  readonly announcements?: number;
}

/** A range whose pages are being dropped by the control thread. */
interface Dropping {
  readonly pages: PageRange;
  readonly announcements: number;
  /** Parts of it whose removal event was read. What is announced more often was removed by somebody else. */
  readonly announced: PageRange[];
}

const samePages = (a: PageRange, b: PageRange): boolean => a.first === b.first && a.count === b.count;

/** The drops that the control thread carries out: between begin and end nothing may be installed in their pages. */
export class Drops {
  readonly #underWay: Dropping[] = [];

  /** No drop is under way. */
  none(): boolean {
    return this.#underWay.length === 0;
  }

  covers(page: PageIndex): boolean {
    return this.#underWay.length > 0 && this.#underWay.some(({ pages }) => within(page, pages));
  }

  /** Looks whether the drops of these pages that are under way now have all ended; later drops do not count. */
  endOf(pages: PageRange): () => boolean {
    const own = this.#underWay.filter((drop) => intersection(drop.pages, pages).length > 0);
    return () => !own.some((drop) => this.#underWay.includes(drop));
  }

  /** Forgets every drop. */
  clear(): void {
    this.#underWay.length = 0;
  }

  /** The runs of pages that are all being dropped, or none of which is. */
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
    this.#underWay.push({ pages, announcements, announced: [] });
  }

  /** Ends one drop of these pages only: the same pages may be being dropped twice, and the other goes on. */
  end(pages: PageRange): void {
    const announced = this.#underWay.findIndex((drop) => samePages(drop.pages, pages) && drop.announced[0]);
    const ended =
      announced >= 0 ? announced : this.#underWay.findIndex((drop) => samePages(drop.pages, pages));
    if (ended >= 0) this.#underWay.splice(ended, 1);
  }

  /**
   * Takes note that a removal was announced. Returns the parts of it that are nobody's drop: what we drop ourselves
   * is not a removal, the drop says what becomes of it.
   */
  announce(pages: PageRange): PageRange[] {
    const foreign: PageRange[] = [];
    const end = pages.first + pages.count;
    for (let at = pages.first; at < end;) {
      const part = { first: at, count: this.#nextBorder(at, end) - at };
      const drop = this.#announcedBy(pages, at);
      if (drop) drop.announced.push(part);
      else foreign.push(part);
      at += part.count;
    }
    return foreign;
  }

  /**
   * The drop under way that an event is of, as far as page `at` goes. One of exactly its pages comes first:
   * of drops that overlap, each is announced by its own event.
   */
  #announcedBy(pages: PageRange, at: PageIndex): Dropping | undefined {
    const open = this.#underWay.filter(
      ({ pages: own, announcements, announced }) =>
        within(at, own) && announced.filter((known) => within(at, known)).length < announcements,
    );
    return open.find((drop) => samePages(drop.pages, pages)) ?? open[0];
  }

  /** The first page after `from` at which a drop, or a part of one that was announced, begins or ends. */
  #nextBorder(from: PageIndex, end: PageIndex): PageIndex {
    let border = end;
    for (const { pages, announced } of this.#underWay) {
      for (const { first, count } of [pages, ...announced]) {
        for (const edge of [first, first + count]) if (edge > from && edge < border) border = edge;
      }
    }
    return border;
  }
}
