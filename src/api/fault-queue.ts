import { type PageIndex } from './address.js';

const LEAST_PLACES = 64;

/**
 * Pages that accessors wait for, oldest first; one entry a page. A ring of numbers, because it is filled and
 * emptied for every fault: an object and a set entry a fault cost as much as all the rest of serving it.
 * Membership is looked up by walking: there are as many entries as threads that wait, at most.
 */
export class FaultQueue {
  #pages = new Float64Array(LEAST_PLACES);
  #cached = new Uint8Array(LEAST_PLACES);
  #takenAt_ms = new Float64Array(LEAST_PLACES);
  #head = 0;
  #length = 0;

  get length(): number {
    return this.#length;
  }

  /** The oldest entry. Precondition of these three: not empty. */
  get page(): PageIndex {
    return this.#pages[this.#head]!;
  }

  /** The page cache has the oldest entry's page. */
  get cached(): boolean {
    return this.#cached[this.#head] === 1;
  }

  get takenAt_ms(): number {
    return this.#takenAt_ms[this.#head]!;
  }

  /** Removes the oldest entry. */
  shift(): void {
    this.#head = (this.#head + 1) % this.#pages.length;
    this.#length--;
  }

  /** Adds a page at the end; false if it is there already. */
  push(page: PageIndex, cached: boolean, takenAt_ms: number): boolean {
    if (this.has(page)) return false;
    if (this.#length === this.#pages.length) this.#grow();
    const at = (this.#head + this.#length) % this.#pages.length;
    this.#pages[at] = page;
    this.#cached[at] = cached ? 1 : 0;
    this.#takenAt_ms[at] = takenAt_ms;
    this.#length++;
    return true;
  }

  has(page: PageIndex): boolean {
    for (let i = 0, at = this.#head; i < this.#length; i++, at++) {
      if (at === this.#pages.length) at = 0;
      if (this.#pages[at] === page) return true;
    }
    return false;
  }

  clear(): void {
    this.#head = 0;
    this.#length = 0;
  }

  #grow(): void {
    const inOrder = <T extends Float64Array | Uint8Array>(from: T, into: T): T => {
      into.set(from.subarray(this.#head));
      into.set(from.subarray(0, this.#head), from.length - this.#head);
      return into;
    };
    const places = this.#pages.length * 2;
    this.#pages = inOrder(this.#pages, new Float64Array(places));
    this.#cached = inOrder(this.#cached, new Uint8Array(places));
    this.#takenAt_ms = inOrder(this.#takenAt_ms, new Float64Array(places));
    this.#head = 0;
  }
}
