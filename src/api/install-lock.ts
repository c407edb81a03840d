const FREE = 0;
const INSTALLING = 1;
/** For good: the resolver installs nothing any more. */
const TAKEN = 2;

/**
 * Which thread carries out resolutions: the resolver's, a batch at a time, until the control thread takes
 * over because the process ends. One word of shared memory.
 *
 * Without it, a batch that the resolver decided by the states it knew could be carried out after the control
 * thread has read an event that the resolver does not know of: contents would come back to pages that were
 * removed meanwhile.
 */
export class InstallLock {
  readonly #words: Int32Array;
  readonly #at: number;

  constructor(words: Int32Array, at: number) {
    this.#words = words;
    this.#at = at;
  }

  /**
   * Control thread: the resolver's thread has ended, perhaps in the middle of a batch, and another resolver
   * goes on.
   */
  static release(words: Int32Array, at: number): void {
    Atomics.compareExchange(words, at, INSTALLING, FREE);
  }

  /** The resolver's thread, before a batch. Where the control thread has taken over it never returns. */
  enter(): void {
    while (Atomics.compareExchange(this.#words, this.#at, FREE, INSTALLING) !== FREE)
      Atomics.wait(this.#words, this.#at, TAKEN);
  }

  /** The resolver's thread, after it. */
  leave(): void {
    // Taken by force meanwhile, it stays taken.
    Atomics.compareExchange(this.#words, this.#at, INSTALLING, FREE);
    Atomics.notify(this.#words, this.#at);
  }

  /**
   * Takes the lock for the control thread, for good: at once, or when the batch in progress has ended. A
   * batch that takes longer than `bound_ms` is not waited for: its thread was ended inside it, or the kernel
   * is busy with a large range.
   */
  take(bound_ms: number): void {
    const deadline_ms = performance.now() + bound_ms;
    while (Atomics.compareExchange(this.#words, this.#at, FREE, TAKEN) === INSTALLING) {
      const left_ms = deadline_ms - performance.now();
      if (left_ms <= 0) return void Atomics.store(this.#words, this.#at, TAKEN);
      Atomics.wait(this.#words, this.#at, INSTALLING, left_ms);
    }
  }
}
