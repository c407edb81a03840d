import { type Gpa, type GpaRange, type ProgramMemory, WINDOW_BYTES } from '../api/index.js';

/** A stretch of guest memory: a memslot. */
export interface Slot {
  readonly gpa: bigint;
  readonly size: bigint;
}

const WINDOW = BigInt(WINDOW_BYTES);

/** Guest memory all of which is present, kept by windows that were written; the rest reads as zeros. */
export class SparseMemory implements ProgramMemory {
  readonly layout: { regionAt(address: Gpa): Slot | undefined };
  readonly #windows = new Map<bigint, Uint8Array>();

  constructor(readonly slots: readonly Slot[]) {
    this.layout = {
      regionAt: (address) => slots.find(({ gpa, size }) => address >= gpa && address < gpa + size),
    };
  }

  isPresent(): boolean {
    return true;
  }

  async bring(): Promise<void> {}

  hint(_ranges: readonly GpaRange[]): void {}

  readSync(address: Gpa, length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    this.#each(address, length, (window, from, at, span) => {
      const known = this.#windows.get(window);
      if (known) bytes.set(known.subarray(from, from + span), at);
    });
    return bytes;
  }

  writeSync(address: Gpa, bytes: Uint8Array): void {
    this.#each(address, bytes.length, (window, from, at, span) => {
      let known = this.#windows.get(window);
      if (!known) this.#windows.set(window, (known = new Uint8Array(WINDOW_BYTES)));
      known.set(bytes.subarray(at, at + span), from);
    });
  }

  setWord(gpa: bigint, word: bigint): void {
    const bytes = new Uint8Array(8);
    new DataView(bytes.buffer).setBigUint64(0, word, true);
    this.writeSync(gpa as Gpa, bytes);
  }

  /** Zeroes a stretch, the untouched part of it for nothing. */
  zero(gpa: bigint, length: bigint): void {
    for (const [window, bytes] of this.#windows) {
      if (window + WINDOW <= gpa || window >= gpa + length) continue;
      const from = gpa > window ? Number(gpa - window) : 0;
      const to = gpa + length < window + WINDOW ? Number(gpa + length - window) : WINDOW_BYTES;
      bytes.fill(0, from, to);
    }
  }

  /** The windows that were ever written, in no order. */
  windows(): Iterable<readonly [gpa: bigint, bytes: Uint8Array]> {
    return this.#windows;
  }

  #each(
    address: bigint,
    length: number,
    piece: (window: bigint, from: number, at: number, span: number) => void,
  ): void {
    for (let at = 0; at < length;) {
      const place = address + BigInt(at);
      const from = Number(place % WINDOW);
      const span = Math.min(length - at, WINDOW_BYTES - from);
      piece(place - BigInt(from), from, at, span);
      at += span;
    }
  }
}
