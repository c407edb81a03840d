import { type PageIndex, type PageRange } from './address.js';
import { DemandPagingError } from './error.js';

/** Rarer states, one sparse plane each. */
export const PLANES = ['removed', 'poisoned', 'write-protected', 'frozen', 'unmapped'] as const;
export type Plane = (typeof PLANES)[number];

/**
 * The state of a page. `in-flight` is known to the resolver that fetches it, and shared only as a count.
 * `removed` pages are missing, too, but come as zeros; `unmapped` ones have no memory to be installed in;
 * `frozen` overlays the others.
 */
export type PageState = 'missing' | 'present' | 'removed' | 'poisoned' | 'unmapped';

const CHUNK_PAGES = 4096;
const CHUNK_WORDS = CHUNK_PAGES / 32;
const ALL = -1; // directory entry: the whole chunk is set
/** Words at the start of the directory. */
const HEADER_WORDS = 4;
const NEXT_BLOCK = 0;
/** Header word: bit n is set once plane n has ever had a page, and stays. */
const USED = 1;
/** Header word: how many pages there are. */
const PAGES = 2;
/** Room to grow is addresses, not memory: this many pages, or twice as many as there are at first. */
const LEAST_ROOM_PAGES = 2 ** 30;
const PLACE: Readonly<Record<Plane, number>> = {
  removed: 0,
  poisoned: 1,
  'write-protected': 2,
  frozen: 3,
  unmapped: 4,
};
/** Planes for the states beside missing and present. */
const SPECIAL = (1 << PLACE.removed) | (1 << PLACE.poisoned) | (1 << PLACE.frozen) | (1 << PLACE.unmapped);

/** Planes that another pager must know of. What is frozen is frozen by the one that froze it. */
const HANDED_OVER = [
  'removed',
  'poisoned',
  'write-protected',
  'unmapped',
] as const satisfies readonly Plane[];

/**
 * The states of a layout's pages, to be handed from one pager to another of the same memory, or of a forked
 * child's copy. Cloneable. Bitmaps: bit `n % 8` of byte `n / 8` for page `n` of the layout; those left out
 * are empty. What is in none comes from the source.
 */
export interface PageStatesSnapshot {
  /** Its contents are in memory. */
  readonly present: Uint8Array;
  /** Removed: it comes as zeros, and never again from the source, also where it is present now. */
  readonly removed?: Uint8Array | undefined;
  readonly poisoned?: Uint8Array | undefined;
  readonly 'write-protected'?: Uint8Array | undefined;
  readonly unmapped?: Uint8Array | undefined;
}

/** What crosses isolates; the buffers are shared, not copied, and grow. */
export interface SharedPageStates {
  /** A bit a page. */
  readonly presence: SharedArrayBuffer;
  /** Header, then for each 4096 pages an entry for each plane. */
  readonly directory: SharedArrayBuffer;
  /** What directory entries name. */
  readonly blocks: SharedArrayBuffer;
}

/**
 * The states of a layout's pages, shared by every isolate that reads them: the resolvers, the control thread,
 * vCPU workers. One presence bit a page in a flat bitmap, and for each rarer state a sparse bitmap that costs
 * 4 bytes a 4096 pages until it is used. 2^28 pages (1 TiB of 4 KiB) take 33 MiB idle.
 *
 * Writers: presence and planes of a page are written only by the resolver that owns its shard (before any
 * resolver runs, by the control thread); shards meet at multiples of 4096 pages. So no two writers share a
 * directory entry or a block, and a reader sees each word whole. A reader of {@link isPresent} that gets true
 * may read the page: the bit is set after the contents are installed (the installing system call orders them)
 * and cleared before they go.
 *
 * Pages are added at the end, by the control thread ({@link grow}), and never removed. Every isolate sees
 * those it asks for: a view made before does not reach so far, and is made again.
 */
export class PageStates {
  readonly #shared: SharedPageStates;
  #presence: Int32Array;
  #directory: Int32Array;
  #blocks: Int32Array;

  constructor(shared: SharedPageStates) {
    this.#shared = shared;
    this.#presence = viewOf(shared.presence);
    this.#directory = viewOf(shared.directory);
    this.#blocks = viewOf(shared.blocks);
  }

  /** New states, every page missing. */
  static create(pageCount: number): PageStates {
    const room = Math.max(LEAST_ROOM_PAGES, 2 * pageCount);
    const growable = (bytes: number, maxByteLength: number): SharedArrayBuffer =>
      new SharedArrayBuffer(bytes, { maxByteLength });
    const states = new PageStates({
      presence: growable(presenceBytes(pageCount), presenceBytes(room)),
      directory: growable(directory_bytes(pageCount), directory_bytes(room)),
      blocks: growable(0, PLANES.length * chunksOf(room) * CHUNK_WORDS * 4),
    });
    Atomics.store(states.#directory, PAGES, pageCount);
    return states;
  }

  /** How many pages there are now. */
  get pageCount(): number {
    return Atomics.load(this.#directory, PAGES) >>> 0;
  }

  /**
   * Adds missing pages at the end. Control thread only, and before any other isolate learns of the pages.
   * Errors: BAD_RANGE where there is no room for so many; then nothing was changed.
   */
  grow(pageCount: number): void {
    const { presence, directory } = this.#shared;
    if (presenceBytes(pageCount) > presence.maxByteLength) {
      throw new DemandPagingError(
        'BAD_RANGE',
        `${pageCount} pages, where there is room for ${presence.maxByteLength * 8}`,
      );
    }
    if (presence.byteLength < presenceBytes(pageCount)) presence.grow(presenceBytes(pageCount));
    if (directory.byteLength < directory_bytes(pageCount)) directory.grow(directory_bytes(pageCount));
    this.#follow();
    Atomics.store(this.#directory, PAGES, pageCount);
  }

  /** States of their own, as these are now. */
  copy(): PageStates {
    const { presence, directory, blocks } = this.#shared;
    return new PageStates({
      presence: copyOf(presence),
      directory: copyOf(directory),
      blocks: copyOf(blocks),
    });
  }

  /** What to hand to another isolate, whose `new PageStates(…)` then sees the same states. */
  get shared(): SharedPageStates {
    return this.#shared;
  }

  /** Bytes held now. */
  get byteLength(): number {
    const { presence, directory, blocks } = this.#shared;
    return presence.byteLength + directory.byteLength + blocks.byteLength;
  }

  /** Makes the views again where one does not reach to a page. Beyond all pages every plane is empty. */
  #reach(page: PageIndex): void {
    if (page >>> 5 >= this.#presence.length) this.#follow();
  }

  #follow(): void {
    this.#presence = viewOf(this.#shared.presence);
    this.#directory = viewOf(this.#shared.directory);
  }

  isPresent(page: PageIndex): boolean {
    this.#reach(page);
    return ((Atomics.load(this.#presence, page >>> 5) >>> (page & 31)) & 1) === 1;
  }

  allPresent({ first, count }: PageRange): boolean {
    return this.nextMissing(first, first + count) === first + count;
  }

  /** The first page from `from` below `end` that is not present, or `end`. */
  nextMissing(from: PageIndex, end: PageIndex): PageIndex {
    return this.#scan(from, end, -1);
  }

  /** The first page from `from` below `end` that is present, or `end`. */
  nextPresent(from: PageIndex, end: PageIndex): PageIndex {
    return this.#scan(from, end, 0);
  }

  /** Sets presence. Owner only. Returns how many pages changed. */
  setPresent({ first, count }: PageRange, present: boolean): number {
    let changed = 0;
    this.#reach(first + count - 1);
    forWords(first, count, (word, mask) => {
      const before = present
        ? Atomics.or(this.#presence, word, mask)
        : Atomics.and(this.#presence, word, ~mask);
      changed += popcount((present ? ~before : before) & mask);
    });
    return changed;
  }

  /** How many pages of a range are present. */
  countPresent({ first, count }: PageRange): number {
    let present = 0;
    this.#reach(first + count - 1);
    forWords(first, count, (word, mask) => {
      present += popcount(Atomics.load(this.#presence, word) & mask);
    });
    return present;
  }

  /**
   * A copy of these pages' states, one after the other, for another pager; of one instant where no resolver
   * runs. Beside a resolver at work a page that is removed meanwhile may read present, which the next pager
   * finds out; it never reads missing, which would bring its contents back.
   */
  snapshot(ranges: readonly PageRange[] = [{ first: 0, count: this.pageCount }]): PageStatesSnapshot {
    const pages = ranges.reduce((sum, { count }) => sum + count, 0);
    // Presence first: a removal clears it first, and marks after.
    const present = new Bitmap(pages);
    present.each(ranges, (from, end, set) => {
      for (let at = this.nextPresent(from, end); at < end;) {
        const stop = this.nextMissing(at, end);
        set(at, stop);
        at = this.nextPresent(stop, end);
      }
    });
    const planes = HANDED_OVER.filter((plane) => ranges.some((range) => this.any(plane, range))).map(
      (plane) => {
        const bits = new Bitmap(pages);
        bits.each(ranges, (from, end, set) => this.#runsIn(plane, from, end, set));
        return [plane, bits.bytes] as const;
      },
    );
    return { present: present.bytes, ...Object.fromEntries(planes) };
  }

  /**
   * Enters a snapshot, of the pages from `first` on. Owner only. Precondition: their states are all missing.
   * Errors: TypeError for what is no bitmap, RangeError for one that is too short.
   */
  restore(snapshot: PageStatesSnapshot, first: PageIndex = 0): void {
    const pages = this.pageCount - first;
    for (const run of runsOf('present', snapshot.present, pages))
      this.setPresent({ first: first + run.first, count: run.count }, true);
    for (const plane of HANDED_OVER) {
      const bits = snapshot[plane];
      if (bits === undefined) continue;
      for (const run of runsOf(plane, bits, pages))
        this.set(plane, { first: first + run.first, count: run.count }, true);
    }
  }

  /**
   * Whether no page was ever removed, poisoned or frozen: then every page is missing or present. One load.
   */
  get plain(): boolean {
    return (Atomics.load(this.#directory, USED) & SPECIAL) === 0;
  }

  is(plane: Plane, page: PageIndex): boolean {
    // The common case: this is asked several times for every fault.
    if ((Atomics.load(this.#directory, USED) & (1 << PLACE[plane])) === 0) return false;
    const entry = this.#entry(plane, page);
    if (entry === 0) return false;
    if (entry === ALL) return true;
    const word = this.#blockWord(entry, page); // first: it may replace the view
    return ((Atomics.load(this.#blocks, word) >>> (page & 31)) & 1) === 1;
  }

  /** Sets or clears a range of a plane. Owner only. */
  set(plane: Plane, { first, count }: PageRange, on: boolean): void {
    if (on) Atomics.or(this.#directory, USED, 1 << PLACE[plane]);
    else if ((Atomics.load(this.#directory, USED) & (1 << PLACE[plane])) === 0) return;
    const end = first + count;
    for (let at = first; at < end;) {
      const chunkEnd = Math.min((Math.floor(at / CHUNK_PAGES) + 1) * CHUNK_PAGES, end);
      this.#setInChunk(plane, at, chunkEnd - at, on);
      at = chunkEnd;
    }
  }

  /** Whether any page of a range is set in a plane. */
  any(plane: Plane, { first, count }: PageRange): boolean {
    if ((Atomics.load(this.#directory, USED) & (1 << PLACE[plane])) === 0) return false;
    for (let page = first; page < first + count; page++) {
      if (this.#entry(plane, page) === 0) {
        page = (Math.floor(page / CHUNK_PAGES) + 1) * CHUNK_PAGES - 1; // nothing in this chunk
      } else if (this.is(plane, page)) return true;
    }
    return false;
  }

  /** The state of a page; a frozen or write-protected page has one of these, too. */
  stateOf(page: PageIndex): PageState {
    if (this.plain) return this.isPresent(page) ? 'present' : 'missing';
    if (this.is('poisoned', page)) return 'poisoned';
    if (this.isPresent(page)) return 'present';
    if (this.is('unmapped', page)) return 'unmapped';
    return this.is('removed', page) ? 'removed' : 'missing';
  }

  /** Visits the runs of a plane's pages, by chunks where whole ones are set or none is. */
  #runsIn(
    plane: Plane,
    from: PageIndex,
    end: PageIndex,
    visit: (from: PageIndex, end: PageIndex) => void,
  ): void {
    for (let at = from; at < end;) {
      const stop = Math.min(end, (Math.floor(at / CHUNK_PAGES) + 1) * CHUNK_PAGES);
      const entry = this.#entry(plane, at);
      if (entry === ALL) visit(at, stop);
      if (entry > 0) for (; at < stop; at++) if (this.is(plane, at)) visit(at, at + 1);
      at = stop;
    }
  }

  /** Scans for a bit that differs from `skip` (0 or -1: all ones). */
  #scan(from: PageIndex, end: PageIndex, skip: 0 | -1): PageIndex {
    this.#reach(end - 1);
    for (let page = from; page < end;) {
      const offset = page & 31;
      const word = (Atomics.load(this.#presence, page >>> 5) ^ skip) >>> offset;
      if (word !== 0) return Math.min(page + 31 - Math.clz32(word & -word), end);
      page += 32 - offset;
    }
    return end;
  }

  #directoryWord(plane: Plane, page: PageIndex): number {
    this.#reach(page);
    return HEADER_WORDS + Math.floor(page / CHUNK_PAGES) * PLANES.length + PLACE[plane];
  }

  #entry(plane: Plane, page: PageIndex): number {
    const word = this.#directoryWord(plane, page); // first: it may replace the view
    return Atomics.load(this.#directory, word);
  }

  /** The word of a page in the block that a directory entry (block + 1) names. */
  #blockWord(entry: number, page: PageIndex): number {
    const word = (entry - 1) * CHUNK_WORDS + ((page % CHUNK_PAGES) >>> 5);
    // Another isolate may have grown the buffer; a view made before does not reach that far.
    if (word >= this.#blocks.length) this.#blocks = viewOf(this.#shared.blocks);
    return word;
  }

  #setInChunk(plane: Plane, first: PageIndex, count: number, on: boolean): void {
    const at = this.#directoryWord(plane, first);
    let entry = Atomics.load(this.#directory, at);
    if (entry === (on ? ALL : 0)) return;
    if (entry <= 0 && count === CHUNK_PAGES) {
      Atomics.store(this.#directory, at, on ? ALL : 0);
      return;
    }
    if (entry <= 0) entry = this.#allocate(at, entry);
    forWords(first % CHUNK_PAGES, count, (word, mask) => {
      const index = this.#blockWord(entry, first - (first % CHUNK_PAGES)) + word;
      if (on) Atomics.or(this.#blocks, index, mask);
      else Atomics.and(this.#blocks, index, ~mask);
    });
  }

  /** Gives a chunk a block of its own, filled as its directory entry said, and publishes it. */
  #allocate(at: number, entry: number): number {
    const { blocks } = this.#shared;
    const block = Atomics.add(this.#directory, NEXT_BLOCK, 1) + 1;
    const start = (block - 1) * CHUNK_WORDS;
    const needed = (start + CHUNK_WORDS) * 4;
    // Shards allocate concurrently: where another has grown the buffer further first, this grow() throws, or
    // is not needed.
    while (blocks.byteLength < needed) {
      try {
        blocks.grow(needed);
      } catch (error) {
        if (blocks.byteLength < needed) throw error;
      }
    }
    this.#blocks = viewOf(blocks);
    this.#blocks.fill(entry, start, start + CHUNK_WORDS); // 0, or -1: all ones
    Atomics.store(this.#directory, at, block); // published after it is filled
    return block;
  }
}

const chunksOf = (pageCount: number): number => Math.ceil(pageCount / CHUNK_PAGES);
const presenceBytes = (pageCount: number): number => chunksOf(pageCount) * CHUNK_WORDS * 4;
const directory_bytes = (pageCount: number): number =>
  (HEADER_WORDS + PLANES.length * chunksOf(pageCount)) * 4;

/**
 * A view of what a growable buffer has now. Of a fixed length: a view that follows the buffer's growth
 * makes every access four times as slow (39 ns instead of 9 for an Atomics.load).
 */
function viewOf(buffer: SharedArrayBuffer): Int32Array {
  return new Int32Array(buffer, 0, buffer.byteLength >>> 2);
}

function forWords(first: number, count: number, visit: (word: number, mask: number) => void): void {
  const end = first + count;
  for (let page = first; page < end;) {
    const offset = page & 31;
    const bits = Math.min(32 - offset, end - page);
    visit(page >>> 5, bits === 32 ? -1 : ((1 << bits) - 1) << offset);
    page += bits;
  }
}

/** Bits of pages that follow each other in ranges. */
class Bitmap {
  readonly bytes: Uint8Array;

  constructor(pages: number) {
    this.bytes = new Uint8Array(Math.ceil(pages / 8));
  }

  /** Has each range visited, and what is set there. */
  each(
    ranges: readonly PageRange[],
    visit: (from: PageIndex, end: PageIndex, set: (from: PageIndex, end: PageIndex) => void) => void,
  ): void {
    let base = 0;
    for (const { first, count } of ranges) {
      const shift = base - first;
      visit(first, first + count, (from, end) => this.#set(from + shift, end + shift));
      base += count;
    }
  }

  #set(from: number, end: number): void {
    for (let bit = from; bit < end;) {
      if (bit % 8 === 0 && end - bit >= 8) {
        const whole = Math.floor((end - bit) / 8);
        this.bytes.fill(0xff, bit / 8, bit / 8 + whole);
        bit += whole * 8;
      } else {
        this.bytes[bit >>> 3]! |= 1 << (bit & 7);
        bit++;
      }
    }
  }
}

/** The runs of set bits of a bitmap. */
function* runsOf(name: string, bitmap: Uint8Array, pages: number): Generator<PageRange> {
  if (!(bitmap instanceof Uint8Array)) throw new TypeError(`the bitmap '${name}' of states is a Uint8Array`);
  if (bitmap.length * 8 < pages)
    throw new RangeError(`the bitmap '${name}' has ${bitmap.length * 8} bits for ${pages} pages`);
  const isSet = (page: number): boolean => ((bitmap[page >>> 3]! >>> (page & 7)) & 1) === 1;
  for (let page = 0; page < pages;) {
    if (page % 8 === 0 && bitmap[page >>> 3] === 0) {
      page += 8;
      continue;
    }
    let end = page;
    while (end < pages && isSet(end)) end++;
    if (end > page) yield { first: page, count: end - page };
    page = end + 1;
  }
}

function popcount(word: number): number {
  let bits = word - ((word >>> 1) & 0x5555_5555);
  bits = (bits & 0x3333_3333) + ((bits >>> 2) & 0x3333_3333);
  return (((bits + (bits >>> 4)) & 0x0f0f_0f0f) * 0x0101_0101) >>> 24;
}

/** Of a buffer that may be growing: what it has now, and no less room. */
function copyOf(buffer: SharedArrayBuffer): SharedArrayBuffer {
  const copied = new SharedArrayBuffer(buffer.byteLength, { maxByteLength: buffer.maxByteLength });
  new Uint8Array(copied).set(new Uint8Array(buffer, 0, copied.byteLength));
  return copied;
}
