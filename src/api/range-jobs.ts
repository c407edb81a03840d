import { type PageRange } from './address.js';
import { DemandPagingError, type ErrorCode } from './error.js';
import { type CommandReply, type PrefetchResult } from './resolver-protocol.js';
import { type PageStates } from './page-states.js';
import { RangeJob } from './range-job.js';

/** What the program has asked a resolver to bring, and what is to be brought while no access waits. */
export class RangeJobs {
  #ensuring: RangeJob[] = [];
  #prefetching: RangeJob[] = [];

  get ensuring(): readonly RangeJob[] {
    return this.#ensuring;
  }

  get prefetching(): readonly RangeJob[] {
    return this.#prefetching;
  }

  /** An `ensured` job has chunks left to take. */
  ensuringLeft(): boolean {
    return this.#ensuring.length > 0 && this.#ensuring.some((job) => !job.exhausted);
  }

  /** A `prefetch` job has chunks left to take. */
  prefetchLeft(): boolean {
    return this.#prefetching.length > 0 && this.#prefetching.some((job) => !job.exhausted);
  }

  start(
    why: 'ensured' | 'prefetch',
    ranges: readonly PageRange[],
    states: PageStates,
    reply: (reply: CommandReply) => void,
  ): void {
    const over = (result: PrefetchResult | DemandPagingError): void =>
      reply(
        result instanceof DemandPagingError
          ? { ok: false, error: result.toPlain() }
          : { ok: true, value: result },
      );
    (why === 'ensured' ? this.#ensuring : this.#prefetching).push(new RangeJob(ranges, why, over));
    this.finish(states);
  }

  /** Pages may have gone missing again: see {@link RangeJob.rewind}. */
  rewind(): void {
    for (const job of this.#ensuring) job.rewind();
  }

  /** Some of these pages are unavailable: the jobs that asked for one by name fail. */
  rejectCovering(pages: PageRange, code: ErrorCode, message: string, cause?: DemandPagingError): void {
    for (const job of this.#ensuring)
      if (job.covers(pages)) job.reject(new DemandPagingError(code, message, { cause }));
  }

  /** Nothing is brought any more. */
  rejectAll(code: ErrorCode, message: string, cause?: DemandPagingError): void {
    for (const job of [...this.#ensuring, ...this.#prefetching])
      job.reject(new DemandPagingError(code, message, { cause }));
    this.#ensuring = [];
    this.#prefetching = [];
  }

  /** Ends the jobs that are done. */
  finish(states: PageStates): void {
    if (this.#ensuring.length > 0) this.#ensuring = this.#ensuring.filter((job) => !job.finish(states));
    if (this.#prefetching.length > 0)
      this.#prefetching = this.#prefetching.filter((job) => !job.finish(states));
  }
}
