import { UFFD_MSG_BYTES } from './userfaultfd-abi.js';
import { UFFD_MSG_WORDS } from './userfaultfd-event.js';

/** Most messages that the event loop reads at once: 2 KiB. */
const MESSAGES = 64;

/**
 * Messages that the event loop has read from a userfaultfd and no port has taken: shared memory, whose zeros
 * are places without a message. It outlives the isolate that read them, so that an event which the kernel has
 * handed out is not lost with a thread that is ended before its port took it: the next port on the same
 * memory takes it.
 */
export class UffdArrivals {
  /** Where the event loop reads to. Only while {@link pending} is false. */
  readonly bytes: Uint8Array;
  readonly #words: Uint32Array;
  /** Places before this one are empty. */
  #next = 0;

  constructor(shared: SharedArrayBuffer) {
    this.bytes = new Uint8Array(shared);
    this.#words = new Uint32Array(shared);
    this.arrived();
  }

  static share(): SharedArrayBuffer {
    return new SharedArrayBuffer(MESSAGES * UFFD_MSG_BYTES);
  }

  /** Called when messages may have come. */
  arrived(): void {
    this.#next = 0;
    while (this.#next < MESSAGES && !this.pending) this.#next++;
  }

  /** Whether a message waits to be taken. No message's first word, its event, is 0. */
  get pending(): boolean {
    return this.#next < MESSAGES && this.#words[this.#next * UFFD_MSG_WORDS] !== 0;
  }

  /** Moves up to `most` messages to the front of `into`, oldest first; how many. */
  take(into: Uint32Array, most: number): number {
    let count = 0;
    for (; count < most && this.pending; count++, this.#next++) {
      const at = this.#next * UFFD_MSG_WORDS;
      into.set(this.#words.subarray(at, at + UFFD_MSG_WORDS), count * UFFD_MSG_WORDS);
      this.#words.fill(0, at, at + UFFD_MSG_WORDS);
    }
    return count;
  }
}
