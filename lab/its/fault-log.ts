export const PAGE = 4096;

const CAPACITY = 1 << 16;
const COUNT = 0;
const HEAD_BYTES = 8;

/** What a tracer's thread needs. Addresses are of this process. */
export interface TracerToken {
  /** Descriptors: the userfaultfd, and an eventfd that ends the thread. */
  readonly uffd: number;
  readonly end: number;
  /** Where the traced memory starts, and the memory that its pages come from. */
  readonly target: number;
  readonly source: number;
  readonly log: SharedArrayBuffer;
}

/** A missing page that was asked for: its offset in the traced memory, and how. */
export type Fault = readonly [offset: number, kind: 'R' | 'W'];

/**
 * The faults of one operation, in order, in shared memory. One writer. A reader that was itself waiting for
 * the last page sees all of them: each is noted before its page is brought.
 */
export class FaultLog {
  readonly #head: Int32Array;
  readonly #entries: Float64Array;

  constructor(readonly shared = new SharedArrayBuffer(HEAD_BYTES + CAPACITY * 8)) {
    this.#head = new Int32Array(shared, 0, HEAD_BYTES / 4);
    this.#entries = new Float64Array(shared, HEAD_BYTES);
  }

  note(offset: number, write: boolean): void {
    const count = Atomics.load(this.#head, COUNT);
    // Offsets are multiples of the page size, so the lowest bit is free.
    if (count < CAPACITY) this.#entries[count] = offset + (write ? 1 : 0);
    Atomics.store(this.#head, COUNT, count + 1);
  }

  /** The faults since the last call. Throws RangeError if there were more than fit. */
  take(): Fault[] {
    const count = Atomics.exchange(this.#head, COUNT, 0);
    if (count > CAPACITY) throw new RangeError(`${count} faults in one operation`);
    return Array.from({ length: count }, (_, at): Fault => {
      const entry = this.#entries[at]!;
      return [entry - (entry % 2), entry % 2 === 1 ? 'W' : 'R'];
    });
  }
}
