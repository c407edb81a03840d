import type { CollectionHandle } from './collection.js';
import type { LpiSlot } from './lpi-store.js';
import type { Address } from './windows.js';

const COLUMNS = 3;
const MIN_ROWS = 4;
const SEARCHED_LINEARLY = 8;

/**
 * A mapped device and its translation table entries in the kernel's list order: order of mapping,
 * sorted by event at each save. Entries are rows of one typed array; a map from event to row is made
 * at the first lookup in a device with many, so a restored device that nobody asks for has none.
 */
export class Device {
  #rows = new Int32Array(COLUMNS * MIN_ROWS);
  #count = 0;
  #ascending = true;
  #byEvent: Map<number, number> | undefined;

  constructor(
    readonly id: number,
    readonly itt: Address,
    readonly eventBits: number,
  ) {}

  get count(): number {
    return this.#count;
  }

  get byteLength(): number {
    return this.#rows.byteLength;
  }

  event(row: number): number {
    return this.#rows[row * COLUMNS]!;
  }

  lpi(row: number): LpiSlot {
    return this.#rows[row * COLUMNS + 1]!;
  }

  collection(row: number): CollectionHandle {
    return this.#rows[row * COLUMNS + 2]!;
  }

  setCollection(row: number, handle: CollectionHandle): void {
    this.#rows[row * COLUMNS + 2] = handle;
  }

  /** The row of an event, or -1. */
  find(event: number): number {
    if (this.#count > SEARCHED_LINEARLY) {
      this.#byEvent ??= this.#indexRows();
      return this.#byEvent.get(event) ?? -1;
    }
    for (let row = 0; row < this.#count; row++) if (this.event(row) === event) return row;
    return -1;
  }

  /** Appends an entry whose event must not have one yet. */
  add(event: number, lpi: LpiSlot, collection: CollectionHandle): void {
    const row = this.#count++;
    if (this.#rows.length < this.#count * COLUMNS) {
      const rows = new Int32Array(this.#rows.length * 2);
      rows.set(this.#rows);
      this.#rows = rows;
    }
    if (row > 0 && this.event(row - 1) > event) this.#ascending = false;
    const at = row * COLUMNS;
    this.#rows[at] = event;
    this.#rows[at + 1] = lpi;
    this.#rows[at + 2] = collection;
    this.#byEvent?.set(event, row);
  }

  remove(row: number): void {
    this.#rows.copyWithin(row * COLUMNS, (row + 1) * COLUMNS, this.#count * COLUMNS);
    this.#count--;
    this.#byEvent = undefined;
  }

  /** Sorts by event, as a save does. */
  sort(): void {
    if (this.#ascending) return;
    const order = Array.from({ length: this.#count }, (_, row) => row);
    order.sort((a, b) => this.event(a) - this.event(b));
    const rows = new Int32Array(this.#rows.length);
    order.forEach((from, to) => {
      rows.set(this.#rows.subarray(from * COLUMNS, (from + 1) * COLUMNS), to * COLUMNS);
    });
    this.#rows = rows;
    this.#ascending = true;
    this.#byEvent = undefined;
  }

  clone(): Device {
    const copy = new Device(this.id, this.itt, this.eventBits);
    copy.#rows = this.#rows.slice();
    copy.#count = this.#count;
    copy.#ascending = this.#ascending;
    return copy;
  }

  #indexRows(): Map<number, number> {
    const rows = new Map<number, number>();
    for (let row = 0; row < this.#count; row++) rows.set(this.event(row), row);
    return rows;
  }
}
