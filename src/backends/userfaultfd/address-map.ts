import { type PageIndex, type PageRange } from '../../api/address.js';
import { type MemoryKind, type Region } from '../../api/layout.js';

/**
 * A run of pages that lie side by side in host memory. Cloneable. Addresses are numbers: user space ends
 * below 2^53.
 */
export interface Segment {
  readonly page: PageIndex;
  readonly count: number;
  readonly start: number;
  readonly pageSize: number;
  readonly memory: MemoryKind;
  /** Verbs that the kernel answered for this memory: bit n is verb code n. */
  readonly verbs: number;
  /** The memory file and the place of the segment's first byte in it. */
  readonly fd: number;
  readonly fileOffset: number;
}

/** A segment inside the map, with what the hot path needs ready. */
interface Piece extends Segment {
  readonly end: number;
  /** Exact: the page size is a power of two. */
  readonly pagesPerByte: number;
}

const NO_FILE = -1;

/** The part of a region inside `pages`, or undefined. `verbs` as yet unknown. */
export function segmentOf(
  region: Region,
  start: number,
  fd: number | undefined,
  fileOffset: number,
  pages: PageRange,
): Segment | undefined {
  const first = Math.max(region.firstPage, pages.first);
  const end = Math.min(region.firstPage + region.pageCount, pages.first + pages.count);
  if (first >= end) return undefined;
  const skipped = (first - region.firstPage) * region.pageSize;
  const { pageSize, memory } = region;
  return {
    page: first,
    count: end - first,
    start: start + skipped,
    pageSize,
    memory,
    verbs: 0,
    fd: fd ?? NO_FILE,
    fileOffset: fileOffset + skipped,
  };
}

function pieceOf(segment: Segment): Piece {
  const { page, count, start, pageSize, memory, verbs, fd, fileOffset } = segment;
  return {
    page,
    count,
    start,
    pageSize,
    memory,
    verbs,
    fd,
    fileOffset,
    end: start + count * pageSize,
    pagesPerByte: 1 / pageSize,
  };
}

const NOTHING = pieceOf({
  page: 0,
  count: 0,
  start: 0,
  pageSize: 1,
  memory: 'anonymous',
  verbs: 0,
  fd: NO_FILE,
  fileOffset: 0,
});

/** `count` pages of a segment from its `skip`th, at `start`. */
function part(
  segment: Segment,
  skip: number,
  count: number,
  start = segment.start + skip * segment.pageSize,
): Segment {
  const bytes = skip * segment.pageSize;
  return { ...segment, page: segment.page + skip, count, start, fileOffset: segment.fileOffset + bytes };
}

/**
 * Where each page of a layout lies in host memory, and back. It follows moves (mremap): the pages of a
 * moved range are found at their new place, and whatever was thought to be there before is forgotten.
 */
export class AddressMap {
  #byPage: Piece[] = [];
  #byAddress: Piece[] = [];
  /** The last one asked for: the next question is mostly about it, too. */
  #last = NOTHING;

  constructor(segments: readonly Segment[]) {
    this.#set(segments);
  }

  get segments(): readonly Segment[] {
    return this.#byPage;
  }

  /** The page at a host address, or -1. */
  pageAt(address: number): PageIndex {
    let piece = this.#last;
    if (!(address >= piece.start && address < piece.end)) {
      const found = this.#find(address);
      if (!found) return -1;
      this.#last = piece = found;
    }
    return piece.page + Math.floor((address - piece.start) * piece.pagesPerByte);
  }

  /** The segment that holds a page, or undefined. */
  at(page: PageIndex): Segment | undefined {
    const last = this.#last;
    if (page >= last.page && page < last.page + last.count) return last;
    const piece = this.#byPage[lastBeginning(this.#byPage, 'page', page)] ?? NOTHING;
    return page >= piece.page && page < piece.page + piece.count ? (this.#last = piece) : undefined;
  }

  /** Where a page lies. Precondition: {@link at} knows it. */
  addressOf(page: PageIndex): number {
    const segment = this.at(page)!;
    return segment.start + (page - segment.page) * segment.pageSize;
  }

  /** The pages inside `[start, end)`, as runs of consecutive pages in ascending order. */
  pagesIn(start: number, end: number): PageRange[] {
    const runs: { first: PageIndex; count: number }[] = [];
    for (const { first, count } of this.runsIn(start, end)) {
      const last = runs.at(-1);
      if (last && last.first + last.count === first) last.count += count;
      else runs.push({ first, count });
    }
    return runs;
  }

  /** As {@link pagesIn}, but pages of one run lie side by side in memory, too. */
  runsIn(start: number, end: number): PageRange[] {
    const runs: PageRange[] = [];
    for (let i = lastBeginning(this.#byAddress, 'start', start); i < this.#byAddress.length; i++) {
      const piece = this.#byAddress[i]!;
      if (piece.start >= end) break;
      const from = Math.max(start, piece.start);
      const to = Math.min(end, piece.end);
      if (from >= to) continue;
      const first = piece.page + Math.floor((from - piece.start) * piece.pagesPerByte);
      runs.push({ first, count: piece.page + Math.ceil((to - piece.start) * piece.pagesPerByte) - first });
    }
    return runs.sort((a, b) => a.first - b.first);
  }

  /** The segments, cut to a range of pages, in page order. */
  within(pages: PageRange): Segment[] {
    const end = pages.first + pages.count;
    const parts: Segment[] = [];
    for (let i = lastBeginning(this.#byPage, 'page', pages.first); i < this.#byPage.length; i++) {
      const piece = this.#byPage[i]!;
      if (piece.page >= end) break;
      const first = Math.max(piece.page, pages.first);
      const stop = Math.min(piece.page + piece.count, end);
      if (first < stop) parts.push(part(piece, first - piece.page, stop - first));
    }
    return parts;
  }

  /** The bytes from `from` are at `to` now. */
  moveBytes(from: number, to: number, length: number): void {
    const moved: Segment[] = [];
    const kept: Segment[] = [];
    for (const piece of this.#byPage) {
      const first = Math.max(0, Math.min(piece.count, Math.floor((from - piece.start) * piece.pagesPerByte)));
      const stop = Math.max(
        0,
        Math.min(piece.count, Math.ceil((from + length - piece.start) * piece.pagesPerByte)),
      );
      if (first > 0) kept.push(part(piece, 0, Math.min(first, piece.count)));
      if (stop > first)
        moved.push(part(piece, first, stop - first, to + (piece.start + first * piece.pageSize - from)));
      if (stop < piece.count)
        kept.push(part(piece, Math.max(first, stop), piece.count - Math.max(first, stop)));
    }
    if (moved.length === 0) return;
    this.#set([...kept.flatMap((segment) => without(segment, to, to + length)), ...moved]);
  }

  /** These pages, consecutive in memory, are at `to` now. Pages not known are passed over. */
  movePages(pages: PageRange, to: number): void {
    for (const segment of this.within(pages)) {
      const bytes = segment.count * segment.pageSize;
      this.moveBytes(segment.start, to + (segment.page - pages.first) * segment.pageSize, bytes);
    }
  }

  /** Further segments; whatever was thought to be at their addresses is forgotten. */
  add(segments: readonly Segment[]): void {
    let others: readonly Segment[] = this.#byPage;
    for (const { start, count, pageSize } of segments) {
      const end = start + count * pageSize;
      if (this.#meets(start, end)) others = others.flatMap((one) => without(one, start, end));
    }
    this.#set([...others, ...segments]);
  }

  /** These pages are nowhere any more. */
  forget({ first, count }: PageRange): void {
    this.#set([
      ...this.within({ first: 0, count: first }),
      ...this.within({ first: first + count, count: Infinity }),
    ]);
  }

  #set(segments: readonly Segment[]): void {
    const pieces = segments.map(pieceOf);
    this.#byPage = [...pieces].sort((a, b) => a.page - b.page);
    this.#byAddress = pieces.sort((a, b) => a.start - b.start);
    this.#last = NOTHING;
  }

  #find(address: number): Piece | undefined {
    const piece = this.#byAddress[lastBeginning(this.#byAddress, 'start', address)] ?? NOTHING;
    return address >= piece.start && address < piece.end ? piece : undefined;
  }

  /** Whether anything lies in `[start, end)`. */
  #meets(start: number, end: number): boolean {
    const last = this.#byAddress[lastBeginning(this.#byAddress, 'start', end - 1)] ?? NOTHING;
    return last.start < end && last.end > start;
  }
}

/** The place of the last piece that begins at a page, or at an address, or before; 0 where none does. */
function lastBeginning(pieces: readonly Piece[], by: 'page' | 'start', at: number): number {
  let low = 0;
  let high = pieces.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >>> 1;
    if (pieces[middle]![by] <= at) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** What remains of a segment when `[start, end)` is taken by others. */
function without(segment: Segment, start: number, end: number): Segment[] {
  const { pageSize, count } = segment;
  const first = Math.max(0, Math.min(count, Math.floor((start - segment.start) / pageSize)));
  const stop = Math.max(0, Math.min(count, Math.ceil((end - segment.start) / pageSize)));
  if (stop <= first) return [segment];
  return [part(segment, 0, first), part(segment, stop, count - stop)].filter((piece) => piece.count > 0);
}
