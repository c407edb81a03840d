import { type Answer, type Ask, type Gpa, type Program, WINDOW_BYTES } from '../api/index.js';
import { EFAULT } from './errno.js';

const WINDOW = BigInt(WINDOW_BYTES);

/** A first touch of a page while missing pages are traced. */
export type Touch = readonly [page: bigint, kind: 'R' | 'W'];

/** Guest memory of the size of a test: memslots, sparse pages, and pages that are traced or gone. */
export class VectorMemory {
  readonly #pages = new Map<bigint, Uint8Array>();
  readonly #gone = new Set<bigint>();
  readonly #protected = new Set<bigint>();
  #present: Set<bigint> | undefined;
  #touches: Touch[] = [];
  #changed = new Map<bigint, bigint>();

  constructor(private readonly slots: readonly { readonly gpa: bigint; readonly size: bigint }[]) {}

  visible(gpa: bigint): boolean {
    return this.slots.some((slot) => gpa >= slot.gpa && gpa < slot.gpa + slot.size);
  }

  /** Makes every page missing, and notes from now on which are touched first. */
  missAll(): void {
    this.#present = new Set();
  }

  stopTracing(): void {
    this.#present = undefined;
  }

  missPage(page: bigint): void {
    this.#gone.add(page);
  }

  /** From now on the page can be read only. */
  protectPage(page: bigint): void {
    this.#protected.add(page);
  }

  fillPage(page: bigint): void {
    this.#gone.delete(page);
    this.#protected.delete(page);
  }

  /** What was touched and changed since the last call. Words that were written as they were are no change. */
  takeEffects(): {
    readonly touches: readonly Touch[];
    readonly changed: readonly (readonly [bigint, bigint])[];
  } {
    const changed: (readonly [bigint, bigint])[] = [];
    for (const [gpa, before] of this.#changed) {
      const now = this.word(gpa);
      if (now !== before) changed.push([gpa, now]);
    }
    changed.sort(([a], [b]) => (a < b ? -1 : 1));
    const touches = this.#touches;
    this.#touches = [];
    this.#changed = new Map();
    return { touches, changed };
  }

  word(gpa: bigint): bigint {
    const bytes = this.#pages.get(gpa - (gpa % WINDOW));
    return bytes === undefined ? 0n : view(bytes).getBigUint64(Number(gpa % WINDOW), true);
  }

  /** A write by the guest or the harness: it reaches every page and makes none present. */
  setWord(gpa: bigint, word: bigint): void {
    view(this.#page(gpa)).setBigUint64(Number(gpa % WINDOW), word, true);
  }

  zero(gpa: bigint, length: bigint): void {
    const end = gpa + length;
    for (const [page, bytes] of this.#pages) {
      if (page + WINDOW <= gpa || page >= end) continue;
      const from = gpa > page ? Number(gpa - page) : 0;
      const to = end < page + WINDOW ? Number(end - page) : WINDOW_BYTES;
      bytes.fill(0, from, to);
    }
  }

  /** Runs a program to its end; a page that is gone fails the access with EFAULT. */
  run<R>(program: Program<R>): R {
    let step = program.next();
    while (step.done !== true) step = program.next(this.#answer(step.value));
    return step.value;
  }

  #answer(ask: Ask): Answer {
    switch (ask.ask) {
      case 'hint':
        return { answer: 'done' };
      case 'visible':
        return { answer: 'visible', visible: this.visible(ask.gpa) };
      case 'read':
        if (!this.#touch(ask.page, 'R')) return { answer: 'fault', errno: EFAULT };
        return { answer: 'bytes', bytes: this.#page(ask.page).slice() };
      case 'write':
        if (!this.#touch(ask.gpa, 'W')) return { answer: 'fault', errno: EFAULT };
        this.#write(ask.gpa, ask.bytes);
        return { answer: 'done' };
      default:
        return ask satisfies never;
    }
  }

  #touch(gpa: Gpa, kind: 'R' | 'W'): boolean {
    const page = gpa - (gpa % WINDOW);
    if (!this.visible(gpa) || this.#gone.has(page)) return false;
    if (kind === 'W' && this.#protected.has(page)) return false;
    if (this.#present !== undefined && !this.#present.has(page)) {
      this.#present.add(page);
      this.#touches.push([page, kind]);
    }
    return true;
  }

  #write(gpa: bigint, bytes: Uint8Array): void {
    const end = gpa + BigInt(bytes.length);
    for (let word = gpa - (gpa % 8n); word < end; word += 8n) {
      if (!this.#changed.has(word)) this.#changed.set(word, this.word(word));
    }
    this.#page(gpa).set(bytes, Number(gpa % WINDOW));
  }

  #page(gpa: bigint): Uint8Array {
    const page = gpa - (gpa % WINDOW);
    let bytes = this.#pages.get(page);
    if (bytes === undefined) this.#pages.set(page, (bytes = new Uint8Array(WINDOW_BYTES)));
    return bytes;
  }
}

const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
