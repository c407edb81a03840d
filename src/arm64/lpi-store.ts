import { IntidIndex } from './intid-index.js';

/** Where an LPI lives in a {@link LpiStore}. */
export type LpiSlot = number;

/** The first INTID that is an LPI. */
export const FIRST_LPI = 8192;

const DENSE_END = 65536;
const NONE = -1;

/** Flags of {@link LpiStore.flags}. */
export const LPI_PENDING = 1;
export const LPI_ENABLED = 2;

/**
 * Every LPI of a VM, shared by its ITSes: one row per LPI over parallel typed arrays, 29 bytes a row,
 * because a realistic guest has tens of thousands. INTIDs that commands can map (below 65536) are
 * found through a dense index, those that only a restored table can name through a sparse one.
 */
export class LpiStore {
  intid = new Uint32Array(16);
  /** Index of the target vCPU, or -1. */
  target = new Int32Array(16);
  /** Index of the vCPU on whose ap_list the LPI is, or -1. */
  apList = new Int32Array(16);
  /** Translation table entries that hold the LPI; more than one only where a kernel shares it. */
  mapped = new Uint32Array(16);
  flags = new Uint8Array(16);
  priority = new Uint8Array(16);
  /** Holders: the entry, the ap_list, translation caches. At 0 the LPI is gone. */
  refs = new Uint32Array(16);
  /** Order of creation, for kernels that walk LPIs in that order. */
  birth = new Uint32Array(16);

  #dense = new Int32Array(0);
  #sparse = new IntidIndex();
  #free: LpiSlot[] = [];
  #used = 0;
  #births = 0;
  #count = 0;
  #entries = 0;
  /** What {@link ordered} gave last, until an LPI comes or goes. */
  #ordered: { readonly order: 'intid' | 'creation'; readonly slots: Int32Array } | undefined;

  get count(): number {
    return this.#count;
  }

  /** Translation table entries that map an LPI. */
  get entries(): number {
    return this.#entries;
  }

  /** Bytes held in typed arrays, for measuring. */
  get byteLength(): number {
    const arrays = [this.intid, this.target, this.apList, this.mapped, this.flags, this.priority, this.refs];
    return [...arrays, this.birth, this.#dense, this.#sparse].reduce(
      (sum, { byteLength }) => sum + byteLength,
      0,
    );
  }

  /** The slot of an INTID, or -1. */
  find(intid: number): LpiSlot {
    if (intid < DENSE_END) {
      const at = intid - FIRST_LPI;
      return at < this.#dense.length ? this.#dense[at]! - 1 : NONE;
    }
    return this.#sparse.get(intid);
  }

  /** Adds an LPI that must not exist yet, held by nobody, not pending, disabled. */
  add(intid: number, target: number): LpiSlot {
    const slot = this.#free.pop() ?? this.#used++;
    if (slot >= this.intid.length) this.#grow(this.intid.length * 2);
    this.intid[slot] = intid;
    this.target[slot] = target;
    this.apList[slot] = NONE;
    this.mapped[slot] = this.flags[slot] = this.priority[slot] = this.refs[slot] = 0;
    this.birth[slot] = this.#births++;
    this.#index(intid, slot);
    this.#count++;
    this.#ordered = undefined;
    return slot;
  }

  /** Notes that an entry maps the LPI, which it holds already. */
  map(slot: LpiSlot): void {
    this.mapped[slot]!++;
    this.#entries++;
  }

  /** Undoes {@link map}, and the hold. */
  unmap(slot: LpiSlot): void {
    this.mapped[slot]!--;
    this.#entries--;
    this.release(slot);
  }

  hold(slot: LpiSlot): void {
    this.refs[slot]!++;
  }

  /** Discards one holder; the last one takes the LPI with it. */
  release(slot: LpiSlot): void {
    const refs = this.refs[slot]! - 1;
    this.refs[slot] = refs;
    if (refs === 0) this.#remove(slot);
  }

  /** All slots as they are now, in ascending INTID or in order of creation. Not to be changed. */
  ordered(order: 'intid' | 'creation'): Int32Array {
    if (this.#ordered?.order !== order) this.#ordered = { order, slots: this.#order(order) };
    return this.#ordered.slots;
  }

  #order(order: 'intid' | 'creation'): Int32Array {
    const slots = new Int32Array(this.#count);
    let filled = 0;
    for (let at = 0; at < this.#dense.length; at++) {
      const slot = this.#dense[at]! - 1;
      if (slot >= 0) slots[filled++] = slot;
    }
    for (const intid of this.#sparse.ascending()) slots[filled++] = this.#sparse.get(intid);
    return order === 'intid' ? slots : slots.sort((a, b) => this.birth[a]! - this.birth[b]!);
  }

  /** How many LPIs were ever added: a mark for {@link dropBornSince}. */
  get births(): number {
    return this.#births;
  }

  /** Removes the LPIs added since a mark, which no entry maps any more, whatever else holds them. */
  dropBornSince(mark: number): void {
    for (const slot of this.ordered('intid')) {
      if (this.birth[slot]! < mark) continue;
      this.apList[slot] = NONE;
      this.refs[slot] = 1;
      this.release(slot);
    }
  }

  clone(): LpiStore {
    const copy = new LpiStore();
    copy.intid = this.intid.slice();
    copy.target = this.target.slice();
    copy.apList = this.apList.slice();
    copy.mapped = this.mapped.slice();
    copy.flags = this.flags.slice();
    copy.priority = this.priority.slice();
    copy.refs = this.refs.slice();
    copy.birth = this.birth.slice();
    copy.#dense = this.#dense.slice();
    copy.#sparse = this.#sparse.clone();
    copy.#free = this.#free.slice();
    copy.#used = this.#used;
    copy.#births = this.#births;
    copy.#count = this.#count;
    copy.#entries = this.#entries;
    return copy;
  }

  #index(intid: number, slot: LpiSlot): void {
    if (intid >= DENSE_END) {
      this.#sparse.add(intid, slot);
      return;
    }
    const at = intid - FIRST_LPI;
    if (at >= this.#dense.length) {
      const grown = new Int32Array(Math.min(DENSE_END - FIRST_LPI, Math.max(64, 2 * (at + 1))));
      grown.set(this.#dense);
      this.#dense = grown;
    }
    this.#dense[at] = slot + 1;
  }

  #remove(slot: LpiSlot): void {
    const intid = this.intid[slot]!;
    if (intid >= DENSE_END) this.#sparse.delete(intid);
    else this.#dense[intid - FIRST_LPI] = 0;
    this.#free.push(slot);
    this.#count--;
    this.#ordered = undefined;
  }

  #grow(capacity: number): void {
    this.intid = grown(this.intid, new Uint32Array(capacity));
    this.target = grown(this.target, new Int32Array(capacity));
    this.apList = grown(this.apList, new Int32Array(capacity));
    this.mapped = grown(this.mapped, new Uint32Array(capacity));
    this.flags = grown(this.flags, new Uint8Array(capacity));
    this.priority = grown(this.priority, new Uint8Array(capacity));
    this.refs = grown(this.refs, new Uint32Array(capacity));
    this.birth = grown(this.birth, new Uint32Array(capacity));
  }
}

function grown<T extends Uint8Array | Uint32Array | Int32Array>(from: T, to: T): T {
  to.set(from);
  return to;
}
