import { type Gpa, type Program, WINDOW_BYTES, isVisible, readWindow, writeBytes } from '../api/index.js';

/**
 * Guest-physical addresses are plain numbers inside this folder: every field that holds one has at
 * most 52 bits, and the largest offset added to it is below 2^33, so a number is exact. They become
 * branded bigints where they are yielded.
 */
export type Address = number;

/** One 4096-byte window of guest memory, as this run of a program sees it. */
export interface Window {
  /** Address of its first byte. */
  readonly start: Address;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  /** False while only written bytes are known; reading it then needs a yield. */
  known: boolean;
  /** A write to it succeeded in this run: what is written from now on waits for the flush. */
  writable: boolean;
  /** One bit per byte that must still be written, or none. */
  dirty: Uint32Array | undefined;
  /** What the dirty bytes were before, kept only where a failed run must put them back. */
  before: Uint8Array | undefined;
}

/** Where an access failed, and the (positive) errno. */
export interface AccessFailure {
  readonly address: Address;
  readonly errno: number;
}

const DIRTY_WORDS = WINDOW_BYTES / 32;
const RECENT = 64;

/** Bounds of one program run. */
export interface WindowLimits {
  /** Windows kept at once (default 4096, 16 MiB). Clean ones beyond it are dropped, oldest first. */
  readonly maxWindows?: number;
}

/** The window that contains `address`. Floor of an exact product: a remainder of doubles is far slower. */
export const windowStart = (address: Address): Address => Math.floor(address / WINDOW_BYTES) * WINDOW_BYTES;

/**
 * The write-back cache of one program run. Structures of a guest may overlap (a pending table inside
 * an ITT, say), so every access of a run goes through one cache and always sees its own writes.
 *
 * The order of *first touches* is the order in which the kernel would touch the pages: a read of an
 * unknown window and the first write to one yield at once, and so fail where the kernel's would: a page may
 * be readable and not writable (a read-only memslot). Later writes wait for {@link Windows.flush}. In an
 * undoable run every write waits for it. Nothing here outlives the run, so a retry sees memory afresh.
 */
export class Windows {
  readonly #windows = new Map<Address, Window>();
  readonly #recent: (Window | undefined)[] = new Array<Window | undefined>(RECENT);
  readonly #visible = new Map<Address, boolean>();
  readonly #keepsBefore: boolean;
  readonly #maxWindows: number;
  #failure: AccessFailure | undefined;

  /** `undoable` keeps what dirty bytes were, so that {@link discard} and a failed flush can undo. */
  constructor(undoable: boolean, limits: WindowLimits = {}) {
    this.#keepsBefore = undoable;
    this.#maxWindows = limits.maxWindows ?? 4096;
  }

  /** The last access that failed since {@link clearFailure}. */
  get failure(): AccessFailure | undefined {
    return this.#failure;
  }

  clearFailure(): void {
    this.#failure = undefined;
  }

  /** The window around `address` if its content is known, without yielding. */
  known(address: Address): Window | undefined {
    const page = Math.floor(address / WINDOW_BYTES);
    const start = page * WINDOW_BYTES;
    const slot = page & (RECENT - 1);
    const recent = this.#recent[slot];
    if (recent !== undefined && recent.start === start && recent.known) return recent;
    const window = this.#windows.get(start);
    if (window === undefined || !window.known) return undefined;
    this.#recent[slot] = window;
    return window;
  }

  /** The window around `address`, reading it if needed; or minus an errno. */
  *read(address: Address): Program<Window | number> {
    const known = this.known(address);
    if (known !== undefined) return known;
    const start = windowStart(address);
    const partial = this.#windows.get(start);
    if (partial !== undefined) {
      const failed = yield* this.#flushWindow(partial);
      if (failed !== 0) return -failed;
    }
    const bytes = yield* readWindow(toGpa(start));
    if (typeof bytes === 'number') return this.#fail(start, bytes);
    return yield* this.#insert(start, bytes, true);
  }

  /** Forgets a window, so that the next read asks again. Its writes are flushed first. */
  *reread(address: Address): Program<Window | number> {
    const start = windowStart(address);
    const window = this.#windows.get(start);
    if (window !== undefined) {
      const failed = yield* this.#flushWindow(window);
      if (failed !== 0) return -failed;
      this.#forget(window);
    }
    return yield* this.read(start);
  }

  /** Writes one little-endian 64-bit word, given as halves. Returns 0 or minus an errno. */
  *writeWord(address: Address, low: number, high: number): Program<number> {
    const start = windowStart(address);
    const offset = address - start;
    let window = this.#windows.get(start);
    if (window === undefined && this.#keepsBefore) {
      throw new TypeError('an undoable run must read a window before it writes it');
    }
    if (window === undefined || !this.isWritable(window)) {
      const bytes = new Uint8Array(8);
      putWord(new DataView(bytes.buffer), 0, low, high);
      const failed = yield* writeBytes(toGpa(address), bytes);
      if (failed !== 0) return this.#fail(address, failed);
      window ??= yield* this.#insert(start, new Uint8Array(WINDOW_BYTES), false);
      window.writable = true;
    } else this.#mark(window, offset, 8);
    putWord(window.view, offset, low, high);
    return 0;
  }

  /** Whether a write to a known window can wait for the flush: it is known to succeed, or can be undone. */
  isWritable(window: Window): boolean {
    return window.writable || this.#keepsBefore;
  }

  /** Changes one byte of a window that {@link isWritable}; it is written at the next flush. */
  setByte(window: Window, offset: number, value: number): void {
    this.#mark(window, offset, 1);
    window.bytes[offset] = value;
  }

  /** Changes one byte of a known window. Returns 0, or minus an errno with the byte as it was. */
  *writeByte(window: Window, offset: number, value: number): Program<number> {
    if (this.isWritable(window)) {
      this.setByte(window, offset, value);
      return 0;
    }
    const failed = yield* writeBytes(toGpa(window.start + offset), Uint8Array.of(value));
    if (failed !== 0) return this.#fail(window.start, failed);
    window.writable = true;
    window.bytes[offset] = value;
    return 0;
  }

  /** Is `address` in a memslot? A window that was read or written is, without asking again. */
  *visible(address: Address): Program<boolean> {
    const start = windowStart(address);
    if (this.#windows.has(start)) return true;
    const before = this.#visible.get(start);
    if (before !== undefined) return before;
    const visible = yield* isVisible(toGpa(start));
    if (this.#visible.size >= this.#maxWindows) this.#visible.clear();
    this.#visible.set(start, visible);
    return visible;
  }

  /**
   * Writes all that is dirty, in the order of first touch. Returns 0 or minus the errno of the first
   * write that failed; an undoable cache then puts back what it had already written.
   */
  *flush(): Program<number> {
    const written: Window[] = [];
    for (const window of this.#windows.values()) {
      if (window.dirty === undefined) continue;
      const marks = window.dirty;
      const failed = yield* this.#flushWindow(window);
      if (failed !== 0) {
        if (this.#keepsBefore) yield* this.#restore([...written, window]);
        return -failed;
      }
      if (this.#keepsBefore) {
        window.dirty = marks;
        written.push(window);
      }
    }
    for (const window of written) window.dirty = window.before = undefined;
    return 0;
  }

  /** Discards every write that was not flushed. The cache must not be used afterwards. */
  discard(): void {
    this.#windows.clear();
    this.#recent.fill(undefined);
  }

  #fail(address: Address, errno: number): number {
    this.#failure = { address, errno };
    return -errno;
  }

  #mark(window: Window, offset: number, count: number): void {
    if (window.dirty === undefined) {
      window.dirty = new Uint32Array(DIRTY_WORDS);
      if (this.#keepsBefore) window.before = window.bytes.slice();
    }
    for (let at = offset; at < offset + count; at++) window.dirty[at >>> 5]! |= 1 << (at & 31);
  }

  *#flushWindow(window: Window): Program<number> {
    const marks = window.dirty;
    if (marks === undefined) return 0;
    window.dirty = undefined;
    for (const [start, end] of runs(marks)) {
      const failed = yield* writeBytes(toGpa(window.start + start), window.bytes.slice(start, end));
      if (failed !== 0) {
        window.dirty = marks;
        this.#failure = { address: window.start, errno: failed };
        return failed;
      }
    }
    return 0;
  }

  *#restore(windows: readonly Window[]): Program<void> {
    for (const { start, dirty, before } of windows) {
      if (dirty === undefined || before === undefined) continue;
      for (const [from, to] of runs(dirty)) {
        // A page that refuses this write refused the first one as well, so nothing is left to undo on it.
        yield* writeBytes(toGpa(start + from), before.slice(from, to));
      }
    }
  }

  *#insert(start: Address, bytes: Uint8Array, known: boolean): Program<Window> {
    const view = new DataView(bytes.buffer, bytes.byteOffset, WINDOW_BYTES);
    const window: Window = {
      start,
      bytes,
      view,
      known,
      writable: false,
      dirty: undefined,
      before: undefined,
    };
    if (this.#windows.size >= this.#maxWindows) yield* this.#evict();
    this.#windows.delete(start);
    this.#windows.set(start, window);
    this.#recent[recentSlot(start)] = window;
    return window;
  }

  /**
   * Makes room by dropping the oldest window. A dirty one is written first, unless the run must stay
   * undoable: then it is kept, and so is one whose write fails, for the final flush to report.
   */
  *#evict(): Program<void> {
    for (const window of this.#windows.values()) {
      if (window.dirty !== undefined && (this.#keepsBefore || (yield* this.#flushWindow(window)) !== 0))
        continue;
      return this.#forget(window);
    }
  }

  #forget(window: Window): void {
    this.#windows.delete(window.start);
    const slot = recentSlot(window.start);
    if (this.#recent[slot] === window) this.#recent[slot] = undefined;
  }
}

/** A power of two, so that the slot of a page above 2^32 is right as well. */
const recentSlot = (start: Address): number => (start / WINDOW_BYTES) & (RECENT - 1);

const toGpa = (address: Address): Gpa => BigInt(address) as Gpa;

function putWord(view: DataView, offset: number, low: number, high: number): void {
  view.setUint32(offset, low, true);
  view.setUint32(offset + 4, high, true);
}

/** The stretches of set bits, as `[start, end)` byte offsets. */
function* runs(marks: Uint32Array): Generator<readonly [number, number]> {
  let start = -1;
  for (let at = 0; at <= WINDOW_BYTES; at++) {
    if (at < WINDOW_BYTES && start < 0 && (at & 31) === 0 && marks[at >>> 5] === 0) {
      at += 31;
      continue;
    }
    const set = at < WINDOW_BYTES && ((marks[at >>> 5]! >>> (at & 31)) & 1) === 1;
    if (set && start < 0) start = at;
    if (!set && start >= 0) {
      yield [start, at];
      start = -1;
    }
  }
}
