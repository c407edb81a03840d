/** The longest time a timer of Node's can be set to. */
const LONG_MS = 2 ** 31 - 1;

/**
 * Keeps this thread's event loop going while `wanted` is set, and, set or not, while something is awaited.
 * What is awaited settles by messages of threads, none of which counts as work for the event loop by itself.
 */
export class KeepAlive {
  readonly #timer = setInterval(() => {}, LONG_MS);
  #wanted = true;
  #awaited = 0;

  set wanted(on: boolean) {
    this.#wanted = on;
    this.#adjust();
  }

  /** Until the promise settles; it is handed through. */
  async during<T>(promise: Promise<T>): Promise<T> {
    this.#awaited++;
    this.#adjust();
    try {
      return await promise;
    } finally {
      this.#awaited--;
      this.#adjust();
    }
  }

  end(): void {
    clearInterval(this.#timer);
  }

  #adjust(): void {
    if (this.#wanted || this.#awaited > 0) this.#timer.ref();
    else this.#timer.unref();
  }
}
