import { type PageIndex, type PageRange } from './address.js';

/** Rarer states, one sparse plane each. */
export const PLANES = ['removed', 'poisoned', 'write-protected', 'frozen', 'unmapped'] as const;
export type Plane = (typeof PLANES)[number];

/**
 * Where a page stands. `in-flight` is known to the resolver that fetches it, and shared only as a count.
 * `removed` pages are missing, too, but come as zeros; `unmapped` ones have no memory to come to; `frozen`
 * overlays the others.
 */
export type PageState = 'missing' | 'present' | 'removed' | 'poisoned' | 'unmapped';

const CHUNK_PAGES = 4096;
const CHUNK_WORDS = CHUNK_PAGES / 32;
const ALL = -1; // directory entry: the whole chunk is set
const HEADER_WORDS = 4;
const NEXT_BLOCK = 0;
/** Header word: bit n is set once plane n has ever had a page, and stays. */
const USED = 1;
const PLACE: Readonly<Record<Plane, number>> = {
  removed: 0,
  poisoned: 1,
  'write-protected': 2,
  frozen: 3,
  unmapped: 4,
};
/** Planes whose pages are more than missing or present. */
const SPECIAL = (1 << PLACE.removed) | (1 << PLACE.poisoned) | (1 << PLACE.frozen) | (1 << PLACE.unmapped);

/** What crosses isolates; both buffers are shared, not copied. */
export interface SharedPageStates {
  readonly pageCount: number;
  readonly presence: SharedArrayBuffer;
  readonly planes: SharedArrayBuffer;
}

/**
 * The states of a layout's pages, shared by every isolate that looks: the resolvers, the control
 * thread, vCPU workers. One presence bit a page in a flat bitmap, and for each rarer state a sparse
 * bitmap that costs 4 bytes a 4096 pages until it is used. 2^28 pages (1 TiB of 4 KiB) take 33 MiB idle.
 *
 * Who may write: presence and planes of a page are written only by the resolver that owns its shard
 * (before any resolver runs, by the control thread); shards meet at multiples of 4096 pages. So no two
 * writers share a directory entry or a block, and a reader sees each word whole. A reader of
 * {@link isPresent} that gets true may read the page: the bit is set after the contents are installed
 * (the installing system call orders them) and cleared before they go.
 */
export class PageStates {
  readonly pageCount: number;
  readonly #presence: Int32Array;
  readonly #planesBuffer: SharedArrayBuffer;
  #planes: Int32Array;
  readonly #chunks: number;

  constructor(shared: SharedPageStates) {
    this.pageCount = shared.pageCount;
    this.#presence = new Int32Array(shared.presence);
    this.#planesBuffer = shared.planes;
    this.#planes = viewOf(shared.planes);
    this.#chunks = Math.ceil(shared.pageCount / CHUNK_PAGES);
  }

  /** New states, every page missing. */
  static create(pageCount: number): PageStates {
    const chunks = Math.ceil(pageCount / CHUNK_PAGES);
    const idleBytes = (HEADER_WORDS + PLANES.length * chunks) * 4;
    // Grows a block at a time; the maximum is address space, not memory.
    const maxByteLength = idleBytes + PLANES.length * chunks * CHUNK_WORDS * 4;
    return new PageStates({
      pageCount,
      presence: new SharedArrayBuffer(chunks * CHUNK_WORDS * 4),
      planes: new SharedArrayBuffer(idleBytes, { maxByteLength }),
    });
  }

  /** What to hand to another isolate, whose `new PageStates(…)` then sees the same states. */
  get shared(): SharedPageStates {
    return {
      pageCount: this.pageCount,
      presence: this.#presence.buffer as SharedArrayBuffer,
      planes: this.#planesBuffer,
    };
  }

  /** Bytes held now. */
  get byteLength(): number {
    return this.#presence.byteLength + this.#planesBuffer.byteLength;
  }

  isPresent(page: PageIndex): boolean {
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
    forWords(first, count, (word, mask) => {
      present += popcount(Atomics.load(this.#presence, word) & mask);
    });
    return present;
  }

  /** The presence bits of all pages, bit `n % 8` of byte `n / 8`: a snapshot, not an instant. */
  snapshot(): Uint8Array {
    return new Uint8Array(new Uint8Array(this.#presence.buffer)).subarray(0, Math.ceil(this.pageCount / 8));
  }

  /** Whether no page was ever removed, poisoned or frozen: then every page is missing or present. One load. */
  get plain(): boolean {
    return (Atomics.load(this.#planes, USED) & SPECIAL) === 0;
  }

  is(plane: Plane, page: PageIndex): boolean {
    // The common case: this is asked several times for every fault.
    if ((Atomics.load(this.#planes, USED) & (1 << PLACE[plane])) === 0) return false;
    const entry = this.#directory(plane, page);
    if (entry === 0) return false;
    if (entry === ALL) return true;
    const word = this.#blockWord(entry, page); // first: it may replace the view
    return ((Atomics.load(this.#planes, word) >>> (page & 31)) & 1) === 1;
  }

  /** Sets or clears a range of a plane. Owner only. */
  set(plane: Plane, { first, count }: PageRange, on: boolean): void {
    if (on) Atomics.or(this.#planes, USED, 1 << PLACE[plane]);
    else if ((Atomics.load(this.#planes, USED) & (1 << PLACE[plane])) === 0) return;
    const end = first + count;
    for (let at = first; at < end;) {
      const chunkEnd = Math.min((Math.floor(at / CHUNK_PAGES) + 1) * CHUNK_PAGES, end);
      this.#setInChunk(plane, at, chunkEnd - at, on);
      at = chunkEnd;
    }
  }

  /** Whether any page of a range is set in a plane. */
  any(plane: Plane, { first, count }: PageRange): boolean {
    if ((Atomics.load(this.#planes, USED) & (1 << PLACE[plane])) === 0) return false;
    for (let page = first; page < first + count; page++) {
      if (this.#directory(plane, page) === 0) {
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

  /** Scans for a bit that differs from `skip` (0 or -1: all ones). */
  #scan(from: PageIndex, end: PageIndex, skip: 0 | -1): PageIndex {
    for (let page = from; page < end;) {
      const offset = page & 31;
      const word = (Atomics.load(this.#presence, page >>> 5) ^ skip) >>> offset;
      if (word !== 0) return Math.min(page + 31 - Math.clz32(word & -word), end);
      page += 32 - offset;
    }
    return end;
  }

  #directoryWord(plane: Plane, page: PageIndex): number {
    return HEADER_WORDS + PLACE[plane] * this.#chunks + Math.floor(page / CHUNK_PAGES);
  }

  #directory(plane: Plane, page: PageIndex): number {
    return Atomics.load(this.#planes, this.#directoryWord(plane, page));
  }

  /** The word of a page in the block that a directory entry (block + 1) names. */
  #blockWord(entry: number, page: PageIndex): number {
    const word =
      HEADER_WORDS + PLANES.length * this.#chunks + (entry - 1) * CHUNK_WORDS + ((page % CHUNK_PAGES) >>> 5);
    // Another isolate may have grown the buffer; a view made before does not reach that far.
    if (word >= this.#planes.length) this.#planes = viewOf(this.#planesBuffer);
    return word;
  }

  #setInChunk(plane: Plane, first: PageIndex, count: number, on: boolean): void {
    const at = this.#directoryWord(plane, first);
    let entry = Atomics.load(this.#planes, at);
    if (entry === (on ? ALL : 0)) return;
    if (entry <= 0 && count === CHUNK_PAGES) {
      Atomics.store(this.#planes, at, on ? ALL : 0);
      return;
    }
    if (entry <= 0) entry = this.#allocate(at, entry);
    forWords(first % CHUNK_PAGES, count, (word, mask) => {
      const index = this.#blockWord(entry, first - (first % CHUNK_PAGES)) + word;
      if (on) Atomics.or(this.#planes, index, mask);
      else Atomics.and(this.#planes, index, ~mask);
    });
  }

  /** Gives a chunk a block of its own, filled as its directory entry said, and publishes it. */
  #allocate(at: number, entry: number): number {
    const block = Atomics.add(this.#planes, NEXT_BLOCK, 1) + 1;
    const start = HEADER_WORDS + PLANES.length * this.#chunks + (block - 1) * CHUNK_WORDS;
    const needed = (start + CHUNK_WORDS) * 4;
    // Shards allocate at once; whoever grows further first makes the other's grow() throw, or needless.
    while (this.#planesBuffer.byteLength < needed) {
      try {
        this.#planesBuffer.grow(needed);
      } catch (error) {
        if (this.#planesBuffer.byteLength < needed) throw error;
      }
    }
    this.#planes = viewOf(this.#planesBuffer);
    this.#planes.fill(entry, start, start + CHUNK_WORDS); // 0, or -1: all ones
    Atomics.store(this.#planes, at, block); // published after it is filled
    return block;
  }
}

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

function popcount(word: number): number {
  let bits = word - ((word >>> 1) & 0x5555_5555);
  bits = (bits & 0x3333_3333) + ((bits >>> 2) & 0x3333_3333);
  return (((bits + (bits >>> 4)) & 0x0f0f_0f0f) * 0x0101_0101) >>> 24;
}
