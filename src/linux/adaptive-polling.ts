import { performance } from 'node:perf_hooks'; // the global is a getter, slower than the clock
import { type FaultBatch } from '../api/fault.js';

/**
 * The longest poll before a sleep, in milliseconds: about the time that it takes to wake an accessor on
 * another cpu, and to be woken there, where that is expensive, as in a virtual machine. KVM's halt_poll_ns
 * has the same default, for the same reason.
 */
const POLL_MS = 0.2;
/** The clock is read once for a poll batch of so many polls: about 2 µs. */
const POLLS_PER_BATCH = 8;
/** The largest number of sleeps without polling first. */
const MOST_SLEEPS = 256;

/** What is polled: a port, on its own thread. */
export interface Polled {
  /** Appends pending rows to the batch and returns how many. Never blocks. */
  drain(batch: FaultBatch): number;
  /** Whether a kick is pending. It ends the poll and is left to the sleep, which it ends at once. */
  isKicked(): boolean;
}

/**
 * Polls a port briefly before its thread sleeps, if that is worth it.
 *
 * An accessor that was just woken often faults again sooner than this thread could fall asleep and be woken
 * on another cpu. Where it does not (the accessor shares this cpu, or faults are rare), polling is wasted:
 * each miss doubles the number of sleeps until the next poll; a success resets it. So at worst one sleep in
 * {@link MOST_SLEEPS} begins {@link POLL_MS} late.
 */
export class AdaptivePolling {
  readonly #port: Polled;
  #sleeps = 0;
  #penalty = 1;

  constructor(port: Polled) {
    this.#port = port;
  }

  /** Called once before every sleep; returns the number of rows taken. */
  poll(batch: FaultBatch): number {
    if (this.#sleeps > 0) {
      this.#sleeps--;
      return 0;
    }
    let end = 0;
    for (;;) {
      for (let poll = 0; poll < POLLS_PER_BATCH; poll++) {
        const taken = this.#port.drain(batch);
        if (taken === 0) continue;
        // A message found late was found because this thread had lost its cpu, perhaps to its accessor.
        if (end === 0 || performance.now() < end) this.#penalty = 1;
        else this.#missed();
        return taken;
      }
      const now = performance.now(); // not before a first poll batch has found nothing
      if (end === 0) end = now + POLL_MS;
      if (now < end && !this.#port.isKicked()) continue;
      this.#missed();
      return 0;
    }
  }

  #missed(): void {
    this.#sleeps = this.#penalty;
    this.#penalty = Math.min(MOST_SLEEPS, this.#penalty * 2);
  }
}
