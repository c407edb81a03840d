import { EventFd } from '../../linux/index.js';

/** What a port in another isolate needs to be kicked. Cloneable; the words are shared. */
export interface KickToken {
  readonly fd: number;
  readonly words: SharedArrayBuffer;
}

/** Kicks so far; one word. */
const COUNT = 0;

/**
 * The control side of making a port return: an eventfd for a port that sleeps in poll(2), and a
 * shared count for one that spins. The count goes first, so whoever is woken by the descriptor sees it.
 */
export class Kicker {
  readonly #event = EventFd.create();
  readonly #words = new SharedArrayBuffer(4);
  readonly #view = new Int32Array(this.#words);

  get token(): KickToken {
    return { fd: this.#event.fd, words: this.#words };
  }

  /** Never blocks; harmless after {@link close}. */
  kick(): void {
    Atomics.add(this.#view, COUNT, 1);
    this.#event.ring();
  }

  close(): void {
    this.#event.close();
  }
}

/** The port's side. */
export class KickSeen {
  readonly #event: EventFd;
  readonly #view: Int32Array;
  #seen = 0;

  constructor(token: KickToken) {
    this.#event = EventFd.borrow(token.fd);
    this.#view = new Int32Array(token.words);
  }

  get fd(): number {
    return this.#event.fd;
  }

  /** Whether there was a kick since {@link acknowledge}; no system call. */
  get pending(): boolean {
    return Atomics.load(this.#view, COUNT) !== this.#seen;
  }

  /** Takes note. A kick that comes in between is either counted here or leaves the descriptor readable. */
  acknowledge(): void {
    this.#seen = Atomics.load(this.#view, COUNT);
    this.#event.clear();
  }

  close(): void {
    this.#event.close();
  }
}
