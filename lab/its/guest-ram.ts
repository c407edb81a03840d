import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { EventFd, mapMemory, raw, UFFD_REGISTER_MODE, Userfaultfd } from 'demand-paging/linux';
import { FaultLog, PAGE, type TracerToken } from './fault-log.js';

const PROT_NONE = 0;
const PROT_READ = 1;
const PROT_READ_WRITE = 3;

export interface Slot {
  readonly gpa: bigint;
  readonly size: bigint;
}

/** What an operation did to memory. */
export interface Effects {
  /** The pages it touched, in the order of the first touch. */
  readonly faults: readonly (readonly [page: bigint, kind: 'R' | 'W'])[];
  /** The words it changed, in order of address. */
  readonly changed: readonly (readonly [gpa: bigint, word: bigint])[];
}

/**
 * Guest memory of which every page is missing before each operation: what the operation touches is seen by a
 * userfaultfd, what it wrote by comparing the touched pages. Between operations the contents lie in a second
 * mapping, which the harness reads and writes without being seen.
 */
export class GuestRam {
  readonly #capacity: number;
  readonly #visible;
  readonly #contents;
  readonly #visibleWords: BigUint64Array;
  readonly #contentWords: BigUint64Array;
  readonly #uffd = Userfaultfd.open();
  readonly #end = EventFd.create();
  readonly #log = new FaultLog();
  readonly #gone = new Set<number>();
  #worker: Worker | undefined;
  #slots: readonly (Slot & { readonly offset: number })[] = [];

  private constructor(capacity: number) {
    this.#capacity = capacity;
    this.#visible = mapMemory({ kind: 'anonymous', length: capacity, transparentHugePages: false });
    this.#contents = mapMemory({ kind: 'anonymous', length: capacity, transparentHugePages: false });
    this.#visibleWords = words(this.#visible.bytes());
    this.#contentWords = words(this.#contents.bytes());
    this.#uffd.register(this.#visible.address, capacity, UFFD_REGISTER_MODE.MISSING);
  }

  /** Memory for slots of `capacity` bytes together, and the thread that serves it. */
  static async open(capacity: number): Promise<GuestRam> {
    const ram = new GuestRam(capacity);
    const token: TracerToken = {
      uffd: ram.#uffd.fd,
      end: ram.#end.fd,
      target: ram.#visible.address,
      source: ram.#contents.address,
      log: ram.#log.shared,
    };
    ram.#worker = new Worker(new URL('./fault-tracer-worker.js', import.meta.url), { workerData: token });
    await once(ram.#worker, 'message');
    return ram;
  }

  /** Starts afresh: these slots, one after the other, all zeros. */
  reset(slots: readonly Slot[]): void {
    let offset = 0;
    this.#slots = slots.map((slot) => {
      const placed = { ...slot, offset };
      offset += Number(slot.size);
      return placed;
    });
    if (offset > this.#capacity)
      throw new RangeError(`slots of ${offset} bytes in a memory of ${this.#capacity}`);
    for (const page of this.#gone) this.#protect(page, PROT_READ_WRITE);
    this.#gone.clear();
    this.#visible.advise('DONTNEED');
    this.#contents.advise('DONTNEED');
  }

  /** The slots with their addresses in this process. */
  get slots(): readonly { readonly gpa: number; readonly length: number; readonly userspace: number }[] {
    return this.#slots.map(({ gpa, size, offset }) => ({
      gpa: Number(gpa),
      length: Number(size),
      userspace: this.#visible.address + offset,
    }));
  }

  /** A word outside the slots is 0. */
  word(gpa: bigint): bigint {
    const offset = this.#offset(gpa);
    return offset === undefined ? 0n : this.#contentWords[offset / 8]!;
  }

  /** A write of the guest or the harness; outside the slots it is lost. */
  setWord(gpa: bigint, word: bigint): void {
    const offset = this.#offset(gpa);
    if (offset !== undefined) this.#contentWords[offset / 8] = word;
  }

  zero(gpa: bigint, length: bigint): void {
    for (let at = gpa; at < gpa + length; at += 8n) this.setWord(at, 0n);
  }

  /** From now on every access to the page fails with EFAULT. */
  missPage(gpa: bigint): void {
    this.#turn(gpa, (page) => {
      this.#gone.add(page);
      this.#protect(page, PROT_NONE);
    });
  }

  /** From now on the page can be read, and a write to it fails with EFAULT. */
  protectPage(gpa: bigint): void {
    this.#turn(gpa, (page) => {
      this.#gone.add(page);
      this.#protect(page, PROT_READ);
    });
  }

  fillPage(gpa: bigint): void {
    this.#turn(gpa, (page) => {
      this.#gone.delete(page);
      this.#protect(page, PROT_READ_WRITE);
    });
  }

  /** Carries out an operation that meets every page missing, and says what it did to them. */
  observe<R>(operation: () => R): { readonly result: R; readonly effects: Effects } {
    this.#log.take();
    const result = operation();
    const faults = this.#log.take();
    const changed: [bigint, bigint][] = [];
    for (const [offset] of faults) this.#takeOver(offset, changed);
    this.#visible.advise('DONTNEED');
    changed.sort(([a], [b]) => (a < b ? -1 : 1));
    return {
      result,
      effects: { changed, faults: faults.map(([offset, kind]) => [this.#gpa(offset), kind]) },
    };
  }

  async close(): Promise<void> {
    const ended = once(this.#worker!, 'exit');
    this.#end.ring();
    await ended;
    this.#uffd.close();
    this.#end.close();
    this.#visible.dispose();
    this.#contents.dispose();
  }

  /** Copies what a page became, word by word. */
  #takeOver(offset: number, changed: [bigint, bigint][]): void {
    for (let at = offset / 8; at < (offset + PAGE) / 8; at++) {
      const word = this.#visibleWords[at]!;
      if (word === this.#contentWords[at]) continue;
      this.#contentWords[at] = word;
      changed.push([this.#gpa(at * 8), word]);
    }
  }

  #turn(gpa: bigint, change: (offset: number) => void): void {
    const offset = this.#offset(gpa);
    if (offset !== undefined) change(offset);
  }

  #protect(offset: number, protection: number): void {
    const result = raw.mprotect(this.#visible.address + offset, PAGE, protection);
    if (result < 0) throw new Error(`mprotect: errno ${-result}`);
  }

  #offset(gpa: bigint): number | undefined {
    const slot = this.#slots.find((each) => gpa >= each.gpa && gpa < each.gpa + each.size);
    return slot && slot.offset + Number(gpa - slot.gpa);
  }

  #gpa(offset: number): bigint {
    const slot = this.#slots.findLast((each) => offset >= each.offset)!;
    return slot.gpa + BigInt(offset - slot.offset);
  }
}

const words = (bytes: Uint8Array): BigUint64Array =>
  new BigUint64Array(bytes.buffer, bytes.byteOffset, bytes.length / 8);
