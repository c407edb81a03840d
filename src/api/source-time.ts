/** How late a look may come, in intervals, before what it missed is taken for a pause. */
const LATE = 2;

/**
 * The time that a source has had, by looks at a clock that are meant to come at least every `interval_ms`.
 *
 * A process that is stopped (SIGSTOP, a cgroup's freezer, a debugger, a host that was suspended) finds the
 * clock far ahead when it goes on, though its source, or its way to it, had no time at all. A look that comes
 * much later than its interval counts as one interval, so that a pause never uses up a time-out; nor does
 * time in which this thread itself did not come to look.
 */
export class SourceTime {
  readonly interval_ms: number;
  #last_ms: number;
  #paused_ms = 0;

  constructor(interval_ms: number, clock_ms: number) {
    this.interval_ms = interval_ms;
    this.#last_ms = clock_ms;
  }

  /** For a time-out: reads the clock often enough that a pause can be told from it. */
  static forTimeout(timeout_ms: number, clock_ms: number): SourceTime {
    return new SourceTime(Math.max(10, timeout_ms / 8), clock_ms);
  }

  /** A look: the source's time at `clock_ms`. */
  look(clock_ms: number): number {
    const gap_ms = clock_ms - this.#last_ms;
    this.#last_ms = clock_ms;
    if (gap_ms > LATE * this.interval_ms) this.#paused_ms += gap_ms - this.interval_ms;
    return clock_ms - this.#paused_ms;
  }

  /** As {@link look}, after time in which no look was meant to come. */
  begin(clock_ms: number): number {
    this.#last_ms = clock_ms;
    return clock_ms - this.#paused_ms;
  }

  /**
   * When, by the clock, the next look is meant to come, for something that is due at a time of the source's.
   */
  nextLook(due_ms: number): number {
    return Math.min(due_ms + this.#paused_ms, this.#last_ms + this.interval_ms);
  }
}
