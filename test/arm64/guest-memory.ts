import {
  type Answer,
  type Ask,
  type Errno,
  type Gpa,
  type Program,
  WINDOW_BYTES,
} from '../../src/api/index.js';
import type { PlanMemory } from '../../src/arm64/plan-memory.js';

const WINDOW = BigInt(WINDOW_BYTES);
export const pageOf = (gpa: bigint): Gpa => (gpa - (gpa % WINDOW)) as Gpa;

/** Guest memory for tests: one memslot or several, sparse pages, and a record of every access. */
export class GuestMemory {
  readonly pages = new Map<bigint, Uint8Array>();
  /** First touches since the last {@link clearTrace}. */
  touches = new Map<bigint, 'R' | 'W'>();
  asks = 0;
  /** Pages whose access fails with EFAULT. */
  readonly gone = new Set<bigint>();
  /** Pages that can be read and not written, as those of a read-only memslot. */
  readonly readOnly = new Set<bigint>();

  constructor(
    readonly slots: readonly { readonly start: bigint; readonly bytes: bigint }[] = [DEFAULT_SLOT],
  ) {}

  visible(gpa: bigint): boolean {
    return this.slots.some(({ start, bytes }) => gpa >= start && gpa < start + bytes);
  }

  page(gpa: bigint): Uint8Array {
    const start = pageOf(gpa);
    let bytes = this.pages.get(start);
    if (bytes === undefined) this.pages.set(start, (bytes = new Uint8Array(WINDOW_BYTES)));
    return bytes;
  }

  word(gpa: bigint): bigint {
    return view(this.page(gpa)).getBigUint64(Number(gpa % WINDOW), true);
  }

  setWord(gpa: bigint, word: bigint): void {
    view(this.page(gpa)).setBigUint64(Number(gpa % WINDOW), word, true);
  }

  byte(gpa: bigint): number {
    return this.page(gpa)[Number(gpa % WINDOW)]!;
  }

  setByte(gpa: bigint, value: number): void {
    this.page(gpa)[Number(gpa % WINDOW)] = value;
  }

  clearTrace(): void {
    this.touches = new Map();
    this.asks = 0;
  }

  clone(): GuestMemory {
    const copy = new GuestMemory(this.slots);
    for (const [page, bytes] of this.pages) copy.pages.set(page, bytes.slice());
    for (const page of this.gone) copy.gone.add(page);
    for (const page of this.readOnly) copy.readOnly.add(page);
    return copy;
  }

  /** Pages whose content differs from another memory's; one that was never written is all zeros. */
  differingPages(other: GuestMemory): bigint[] {
    const zeros = new Uint8Array(WINDOW_BYTES);
    const all = new Set([...this.pages.keys(), ...other.pages.keys()]);
    return [...all].filter(
      (page) => Buffer.compare(this.pages.get(page) ?? zeros, other.pages.get(page) ?? zeros) !== 0,
    );
  }

  answer(ask: Ask): Answer {
    this.asks++;
    switch (ask.ask) {
      case 'hint':
        return { answer: 'done' };
      case 'visible':
        return { answer: 'visible', visible: this.visible(ask.gpa) };
      case 'read':
        if (!this.touch(ask.page, 'R')) return { answer: 'fault', errno: 14 };
        return { answer: 'bytes', bytes: this.page(ask.page).slice() };
      case 'write': {
        if (!this.touch(ask.gpa, 'W')) return { answer: 'fault', errno: 14 };
        this.page(ask.gpa).set(ask.bytes, Number(ask.gpa % WINDOW));
        return { answer: 'done' };
      }
    }
  }

  touch(gpa: bigint, kind: 'R' | 'W'): boolean {
    const page = pageOf(gpa);
    if (!this.visible(gpa) || this.gone.has(page)) return false;
    if (kind === 'W' && this.readOnly.has(page)) return false;
    if (!this.touches.has(page)) this.touches.set(page, kind);
    return true;
  }

  run<R>(program: Program<R>): R {
    let step = program.next();
    while (step.done !== true) step = program.next(this.answer(step.value));
    return step.value;
  }
}

const DEFAULT_SLOT = { start: 0x8000_0000n, bytes: 0x4000_0000n };
const view = (bytes: Uint8Array): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);

/**
 * A source that answers after a fixed latency of virtual time: nothing sleeps, and what it measures
 * does not depend on the machine.
 */
export class LatencyMemory implements PlanMemory {
  readonly held = new Set<bigint>();
  readonly here = new Set<bigint>();
  now = 0;
  inFlight = 0;
  maxInFlight = 0;
  fetched = 0;
  #due: { readonly at: number; readonly finish: () => void }[] = [];
  /** Called between arrivals, to disturb. */
  disturb: (() => void) | undefined;

  constructor(
    readonly memory: GuestMemory,
    readonly latency: number,
  ) {}

  visible(page: Gpa): boolean {
    return this.memory.visible(page);
  }

  writable(page: Gpa): boolean {
    return !this.memory.readOnly.has(page);
  }

  present(page: Gpa): boolean {
    return this.here.has(page);
  }

  fetch(pages: readonly Gpa[]): Promise<readonly (Uint8Array | Errno)[]> {
    this.inFlight += pages.length;
    this.fetched += pages.length;
    this.maxInFlight = Math.max(this.maxInFlight, this.inFlight);
    const wait = pages.every((page) => this.here.has(page)) ? 0 : this.latency;
    return new Promise((resolve) => {
      const finish = (): void => {
        this.inFlight -= pages.length;
        resolve(pages.map((page) => this.#arrive(page)));
      };
      if (this.#due.length === 0) setImmediate(() => this.#tick());
      this.#due.push({ at: this.now + wait, finish });
    });
  }

  release(pages: readonly Gpa[]): void {
    for (const page of pages)
      if (!this.held.delete(page)) throw new Error(`0x${page.toString(16)} is not held`);
  }

  /** Removes a page as a balloon would; refused while it is held. */
  remove(page: bigint): boolean {
    if (this.held.has(page)) return false;
    this.here.delete(page);
    return true;
  }

  #arrive(page: Gpa): Uint8Array | Errno {
    if (this.memory.gone.has(page)) return 14;
    this.here.add(page);
    if (this.held.has(page)) throw new Error(`0x${page.toString(16)} was fetched twice`);
    this.held.add(page);
    return this.memory.page(page).slice();
  }

  #tick(): void {
    this.#due.sort((a, b) => a.at - b.at);
    const next = this.#due.shift();
    if (next === undefined) return;
    this.now = Math.max(this.now, next.at);
    next.finish();
    this.disturb?.();
    if (this.#due.length > 0) setImmediate(() => this.#tick());
  }
}
