import { KVM_MEM, type KvmVm, NativeBlock } from '../linux/index.js';

/** KVM logs by pages of this size, whatever the memory is made of. */
export const DIRTY_PAGE_BYTES = 4096;

/** Slot flag of memory whose written pages are logged. */
export const LOG_DIRTY = KVM_MEM.LOG_DIRTY_PAGES;

/**
 * Pages that vCPUs wrote, gathered from the dirty logs of memslots before these are deleted, since a log is
 * deleted with its memslot. One bit for each 4096 bytes, in the order of the regions. The slot thread adds,
 * the control thread takes: by Atomics, so that no page is lost between the two.
 */
export class DirtyPages {
  readonly #words: Int32Array;
  readonly pages: number;

  constructor(shared: SharedArrayBuffer, pages: number) {
    this.#words = new Int32Array(shared);
    this.pages = pages;
  }

  static share(pages: number): SharedArrayBuffer {
    return new SharedArrayBuffer(Math.ceil(pages / 32) * 4);
  }

  /**
   * Adds the log of a slot with `count` pages, the first of which is page `first` here, and clears the log.
   */
  gather(vm: Pick<KvmVm, 'dirtyLog'>, slot: number, first: number, count: number): void {
    using bitmap = new NativeBlock(Math.ceil(count / 64) * 8);
    vm.dirtyLog(slot, bitmap.address);
    for (let word = 0; word * 32 < count; word++) {
      for (let bits = bitmap.words[word]!; bits !== 0; bits &= bits - 1) {
        const page = first + word * 32 + (31 - Math.clz32(bits & -bits));
        Atomics.or(this.#words, page >>> 5, 1 << (page & 31));
      }
    }
  }

  /** What was gathered since the last call: bit `n % 8` of byte `n / 8` for page `n`. */
  take(): Uint8Array {
    const taken = new Int32Array(this.#words.length);
    for (let word = 0; word < taken.length; word++) taken[word] = Atomics.exchange(this.#words, word, 0);
    return new Uint8Array(taken.buffer, 0, Math.ceil(this.pages / 8));
  }
}
