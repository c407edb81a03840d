const EMPTY = 0;
const GONE = 1;
const RUN_BITS = 6;

/**
 * Finds the slot of an INTID at or above 65536: open addressing over two typed arrays, 8 bytes a place,
 * at most half full. INTIDs that follow each other stay next to each other, up to 64; where a run
 * begins depends on a random multiplier, so that no table can be written to make all of them collide.
 */
export class IntidIndex {
  #keys = new Uint32Array(64);
  #slots = new Int32Array(64);
  #shift = 26;
  /** Places that are not {@link EMPTY}, whether in use or {@link GONE}. */
  #taken = 0;
  #count = 0;
  readonly #multiplier = (Math.floor(Math.random() * 2 ** 31) * 2 + 1) | 0;

  get byteLength(): number {
    return this.#keys.byteLength + this.#slots.byteLength;
  }

  /** The slot, or -1. */
  get(intid: number): number {
    const keys = this.#keys;
    const mask = keys.length - 1;
    for (let at = this.#home(intid); ; at = (at + 1) & mask) {
      const key = keys[at]!;
      if (key === intid) return this.#slots[at]!;
      if (key === EMPTY) return -1;
    }
  }

  /** Adds an INTID that is not there yet. */
  add(intid: number, slot: number): void {
    if ((this.#taken + 1) * 2 > this.#keys.length) this.#rebuild();
    this.#place(intid, slot);
    this.#taken++;
    this.#count++;
  }

  delete(intid: number): void {
    const keys = this.#keys;
    const mask = keys.length - 1;
    for (let at = this.#home(intid); keys[at] !== EMPTY; at = (at + 1) & mask) {
      if (keys[at] !== intid) continue;
      keys[at] = GONE;
      this.#count--;
      return;
    }
  }

  /** All INTIDs, ascending. */
  ascending(): Uint32Array {
    return this.#keys.filter((key) => key > GONE).sort();
  }

  clone(): IntidIndex {
    const copy = new IntidIndex();
    for (const [at, key] of this.#keys.entries()) if (key > GONE) copy.add(key, this.#slots[at]!);
    return copy;
  }

  #home(intid: number): number {
    const run = Math.imul(intid >>> RUN_BITS, this.#multiplier) >>> this.#shift;
    return (run + (intid & (2 ** RUN_BITS - 1))) & (this.#keys.length - 1);
  }

  #place(intid: number, slot: number): void {
    const mask = this.#keys.length - 1;
    let at = this.#home(intid);
    while (this.#keys[at] !== EMPTY) at = (at + 1) & mask;
    this.#keys[at] = intid;
    this.#slots[at] = slot;
  }

  /** Doubles, or only sweeps out what is gone if that is enough. */
  #rebuild(): void {
    const [keys, slots] = [this.#keys, this.#slots];
    const size = this.#count * 4 > keys.length ? keys.length * 2 : keys.length;
    this.#keys = new Uint32Array(size);
    this.#slots = new Int32Array(size);
    this.#shift = 32 - Math.log2(size);
    this.#taken = this.#count;
    for (let at = 0; at < keys.length; at++) if (keys[at]! > GONE) this.#place(keys[at]!, slots[at]!);
  }
}
