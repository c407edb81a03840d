const EMPTY = 0;
const GONE = 1;
/** INTIDs of a run: their keys fill one line of a cache. */
const RUN_BITS = 4;
const RUN = 2 ** RUN_BITS;

/**
 * Finds the slot of an INTID at or above 65536: open addressing over two typed arrays, 8 bytes a place,
 * at most half full. INTIDs that follow each other stay next to each other, in aligned runs of 16; which
 * place a run has depends on all its bits and a random seed. So no table can be written to make many of
 * them collide: the worst, one INTID of each run, has eight at a place.
 */
export class IntidIndex {
  #keys = new Uint32Array(64);
  #slots = new Int32Array(64);
  /** Bits of a hash that do not choose among the runs of the table. */
  #shift = shiftFor(64);
  /** Places that are not {@link EMPTY}, whether in use or {@link GONE}. */
  #taken = 0;
  #count = 0;
  #seed = Math.floor(Math.random() * 2 ** 32);

  get byteLength(): number {
    return this.#keys.byteLength + this.#slots.byteLength;
  }

  /** The most places that a look-up of an INTID that is there tries, for measuring. */
  get longestProbe(): number {
    const mask = this.#keys.length - 1;
    let longest = 0;
    for (const [at, key] of this.#keys.entries())
      if (key > GONE) longest = Math.max(longest, ((at - this.#home(key)) & mask) + 1);
    return longest;
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
    copy.#keys = this.#keys.slice();
    copy.#slots = this.#slots.slice();
    copy.#shift = this.#shift;
    copy.#taken = this.#taken;
    copy.#count = this.#count;
    copy.#seed = this.#seed;
    return copy;
  }

  #home(intid: number): number {
    let run = (intid >>> RUN_BITS) ^ this.#seed;
    run = Math.imul(run ^ (run >>> 16), 0x85eb_ca6b);
    run = Math.imul(run ^ (run >>> 13), 0xc2b2_ae35);
    return (((run ^ (run >>> 16)) >>> this.#shift) << RUN_BITS) | (intid & (RUN - 1));
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
    this.#shift = shiftFor(size);
    this.#taken = this.#count;
    for (let at = 0; at < keys.length; at++) if (keys[at]! > GONE) this.#place(keys[at]!, slots[at]!);
  }
}

const shiftFor = (places: number): number => 32 - Math.log2(places) + RUN_BITS;
