import type { CollectionHandle } from './collection.js';
import type { LpiSlot } from './lpi-store.js';
import type { Address } from './windows.js';

const COLUMNS = 3;
const MIN_ROWS = 4;
const SEARCHED_LINEARLY = 8;
/** In place of the event of a row that was removed. */
const GONE = -1;

/**
 * A mapped device and its translation table entries in the kernel's list order: order of mapping,
 * sorted by event at each save. Entries are rows of one typed array; a map from event to row is made
 * at the first lookup in a device with many, so a restored device that nobody asks for has none. A row that
 * is removed only loses its event; the others move up when the rows are next walked, or the array is full.
 */
export class Device {
  #rows = new Int32Array(COLUMNS * MIN_ROWS);
  /** Rows, with those that are gone. */
  #used = 0;
  #gone = 0;
  #ascending = true;
  #byEvent: Map<number, number> | undefined;

  constructor(
    readonly id: number,
    readonly itt: Address,
    readonly eventBits: number,
  ) {}

  /** Rows from 0 on, to walk them: what {@link find} gave before is not valid any more. */
  get count(): number {
    this.#compact();
    return this.#used;
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
    if (this.#used > SEARCHED_LINEARLY) {
      this.#byEvent ??= this.#indexRows();
      return this.#byEvent.get(event) ?? -1;
    }
    for (let row = 0; row < this.#used; row++) if (this.event(row) === event) return row;
    return -1;
  }

  /** Appends an entry whose event must not have one yet. */
  add(event: number, lpi: LpiSlot, collection: CollectionHandle): void {
    if (this.#rows.length < (this.#used + 1) * COLUMNS) this.#makeRoom();
    const row = this.#used++;
    if (row > 0 && this.event(row - 1) > event) this.#ascending = false;
    const at = row * COLUMNS;
    this.#rows[at] = event;
    this.#rows[at + 1] = lpi;
    this.#rows[at + 2] = collection;
    this.#byEvent?.set(event, row);
  }

  /** Removes an entry; rows that {@link find} gave stay valid. */
  remove(row: number): void {
    this.#byEvent?.delete(this.event(row));
    this.#rows[row * COLUMNS] = GONE;
    this.#gone++;
  }

  /** Sorts by event, as a save does. */
  sort(): void {
    this.#compact();
    if (this.#ascending) return;
    const order = Array.from({ length: this.#used }, (_, row) => row);
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
    this.#compact();
    const copy = new Device(this.id, this.itt, this.eventBits);
    copy.#rows = this.#rows.slice();
    copy.#used = this.#used;
    copy.#ascending = this.#ascending;
    return copy;
  }

  #compact(): void {
    if (this.#gone === 0) return;
    let to = 0;
    for (let row = 0; row < this.#used; row++) {
      if (this.event(row) === GONE) continue;
      if (to < row) this.#rows.copyWithin(to * COLUMNS, row * COLUMNS, (row + 1) * COLUMNS);
      to++;
    }
    this.#used = to;
    this.#gone = 0;
    this.#byEvent = undefined;
  }

  /** A full array of which half is gone has room enough: what was added since pays for the walk. */
  #makeRoom(): void {
    if (this.#gone * 2 >= this.#used) return this.#compact();
    const rows = new Int32Array(this.#rows.length * 2);
    rows.set(this.#rows);
    this.#rows = rows;
  }

  #indexRows(): Map<number, number> {
    const rows = new Map<number, number>();
    for (let row = 0; row < this.#used; row++) if (this.event(row) !== GONE) rows.set(this.event(row), row);
    return rows;
  }
}
