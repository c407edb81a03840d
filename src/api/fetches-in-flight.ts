import { type PageIndex, type PageRange } from './address.js';
import { DemandPagingError, asDemandPagingError } from './error.js';
import { type MemoryLayout } from './layout.js';
import { type FetchReason } from './resolver-protocol.js';
import { type RangeJob } from './range-job.js';
import { type ReadAnswer, type ZeroRange, zerosOf } from './read-answer.js';
import { isPromise, type PageSource } from './source.js';
import { SourceTime } from './source-time.js';

/** One fetch in flight. */
export interface FetchRequest {
  readonly pages: PageRange;
  /** The page that an access waits for, or -1. */
  readonly demand: PageIndex;
  readonly why: FetchReason;
  /** The page cache has the page (a minor fault): install by writing into it. */
  readonly cached: boolean;
  readonly takenAt_ms: number;
  attempt: number;
  /** Pauses and time-outs so far. */
  spent_ms: number;
  /** When, in the source's time, the fetch counts as failed, or, between attempts, when it is tried again. */
  due_ms: number;
  resting: boolean;
  /** Set when its answer no longer matters. */
  cancelled: boolean;
  /** The job that this is a chunk of. */
  readonly job: RangeJob | undefined;
}

/** What may be in flight at once. */
export interface FetchLimits {
  /** Fetches. */
  readonly requests: number;
  /** Bytes for which no access waits: an access that comes then may have to wait behind them. */
  readonly ahead_bytes: number;
}

export interface FetchEvents {
  /** The bytes of a request are in `bytes`, but for the zeros, which may be anything there. */
  fetched(request: FetchRequest, bytes: Uint8Array, zeros: readonly ZeroRange[]): void;
  /** An attempt failed. */
  failed(request: FetchRequest, error: DemandPagingError): void;
  /** Something asynchronous is ready for the next turn. */
  work(): void;
  /** Called before and after asking the source. */
  reading(): void;
}

/** Shares of the places that work ahead of accesses may take. */
const PLACES = { ensured: 3 / 4, prefetch: 1 / 2 } as const;

interface Settled {
  readonly request: FetchRequest;
  readonly attempt: number;
  readonly bytes: Uint8Array;
  readonly result: ReadAnswer | DemandPagingError;
}

/**
 * The fetches of a resolver that are in flight with an asynchronous source, or pause between attempts: a
 * bounded list, short enough to search. Answers that arrive between turns wait for {@link collect}, so that
 * states change only inside a turn.
 */
export class FetchesInFlight {
  readonly #source: PageSource;
  readonly #layout: MemoryLayout;
  readonly #timeout_ms: number;
  readonly #limits: FetchLimits;
  readonly #events: FetchEvents;
  readonly #requests: FetchRequest[] = [];
  #settled: Settled[] = [];
  readonly #time: SourceTime;

  constructor(
    source: PageSource,
    layout: MemoryLayout,
    timeout_ms: number,
    limits: FetchLimits,
    events: FetchEvents,
  ) {
    this.#time = SourceTime.forTimeout(timeout_ms, 0);
    this.#source = source;
    this.#layout = layout;
    this.#timeout_ms = timeout_ms;
    this.#limits = limits;
    this.#events = events;
  }

  get count(): number {
    return this.#requests.length;
  }

  get hasAnswers(): boolean {
    return this.#settled.length > 0;
  }

  /** Something is in flight, or has arrived: {@link collect} and {@link nextDue_ms} have a result. */
  get expects(): boolean {
    return this.#requests.length > 0 || this.#settled.length > 0;
  }

  /**
   * The most bytes that a fetch for this reason may ask for now; 0 when it has to wait. A demand fetch may
   * take any place that is free. Fetches ahead of accesses leave places to them and, because a source answers
   * in some order, are bounded in bytes as well: an `ensured` fetch counts the bytes of its own kind, a
   * prefetch all of them.
   */
  roomFor(why: FetchReason): number {
    const { requests, ahead_bytes } = this.#limits;
    const inFlight = this.#requests.length;
    if (why === 'demand') return inFlight < requests ? Infinity : 0;
    if (inFlight === 0) return ahead_bytes;
    if (inFlight >= Math.floor(requests * PLACES[why])) return 0;
    return Math.max(0, ahead_bytes - this.#bytesAhead(why));
  }

  #bytesAhead(why: 'ensured' | 'prefetch'): number {
    let bytes = 0;
    for (const { pages, why: other } of this.#requests)
      if (other === 'ensured' || other === why)
        bytes += pages.count * this.#layout.regionOf(pages.first).pageSize;
    return bytes;
  }

  /** The request in flight that brings a page, if there is one. */
  find(page: PageIndex): FetchRequest | undefined {
    if (this.#requests.length === 0) return undefined;
    return this.#requests.find(({ pages }) => page >= pages.first && page < pages.first + pages.count);
  }

  /** Cuts `pages` down to the part around `keep` that no request in flight brings. */
  clip(pages: PageRange, keep: PageIndex): PageRange {
    let { first } = pages;
    let end = pages.first + pages.count;
    for (const { pages: other } of this.#requests) {
      const otherEnd = other.first + other.count;
      if (otherEnd <= first || other.first >= end) continue;
      if (other.first > keep) end = Math.min(end, other.first);
      else first = Math.max(first, otherEnd);
    }
    return { first, count: Math.max(0, end - first) };
  }

  /**
   * When {@link collect} is to be called next: a request is due then, or the clock must be read. Infinity for
   * never.
   */
  get nextDue_ms(): number {
    if (this.#requests.length === 0) return Infinity;
    return this.#time.nextLook(
      this.#requests.reduce((soonest, { due_ms }) => Math.min(soonest, due_ms), Infinity),
    );
  }

  /** Adds a request that rests. */
  rest(request: FetchRequest, now_ms: number, pause_ms: number): void {
    request.resting = true;
    request.due_ms = this.#sourceTime(now_ms) + pause_ms;
    if (!this.#requests.includes(request)) this.#requests.push(request);
  }

  /** The source's time. While nothing is in flight, the clock need not be read. */
  #sourceTime(now_ms: number): number {
    return this.#requests.length === 0 ? this.#time.begin(now_ms) : this.#time.look(now_ms);
  }

  /**
   * Asks the source, into a buffer of the request's own. A synchronous answer waits in {@link collect}, too.
   */
  ask(request: FetchRequest, now_ms: number): void {
    const bytes = new Uint8Array(request.pages.count * this.#layout.regionOf(request.pages.first).pageSize);
    const { attempt } = request;
    request.resting = false;
    request.due_ms = this.#sourceTime(now_ms) + this.#timeout_ms;
    if (!this.#requests.includes(request)) this.#requests.push(request);
    const settle = (result: ReadAnswer | DemandPagingError): void => {
      this.#settled.push({ request, attempt, bytes, result });
      this.#events.work();
    };
    const fail = (cause: unknown): void =>
      settle(asDemandPagingError(cause, 'SOURCE_FAILED', 'the source failed'));
    this.#events.reading();
    try {
      const answer = this.#source.read(Number(this.#layout.sourceOffsetOf(request.pages.first)), bytes);
      if (isPromise(answer)) answer.then(settle, fail);
      else settle(answer);
    } catch (cause) {
      fail(cause);
    } finally {
      this.#events.reading();
    }
  }

  /** Hands over what has arrived, and what is overdue. */
  collect(now_ms: number): void {
    const sourceTime_ms = this.#sourceTime(now_ms);
    const settled = this.#settled;
    this.#settled = [];
    for (const { request, attempt, bytes, result } of settled) {
      // An attempt that timed out may still answer; only the current one counts.
      if (
        request.cancelled ||
        request.resting ||
        request.attempt !== attempt ||
        !this.#requests.includes(request)
      )
        continue;
      this.#remove(request);
      const zeros = result instanceof DemandPagingError ? result : zerosOf(result, bytes.length);
      if (zeros instanceof DemandPagingError) this.#events.failed(request, zeros);
      else this.#events.fetched(request, bytes, zeros);
    }
    for (const request of this.#requests.filter(({ due_ms }) => due_ms <= sourceTime_ms)) {
      if (request.cancelled) continue; // by what a failure before it led to
      if (request.resting) this.ask(request, now_ms);
      else {
        this.#remove(request);
        this.#events.failed(
          request,
          new DemandPagingError('SOURCE_TIMEOUT', `the source did not answer within ${this.#timeout_ms} ms`),
        );
      }
    }
  }

  /** Cancels every request that brings any of `pages`; returns them. */
  cancel(pages: PageRange): readonly FetchRequest[] {
    const end = pages.first + pages.count;
    const hit = this.#requests.filter(
      ({ pages: other }) => other.first < end && pages.first < other.first + other.count,
    );
    for (const request of hit) {
      request.cancelled = true;
      this.#remove(request);
    }
    return hit;
  }

  /** Cancels every request. */
  clear(): void {
    for (const request of this.#requests) request.cancelled = true;
    this.#requests.length = 0;
  }

  #remove(request: FetchRequest): void {
    const at = this.#requests.indexOf(request);
    if (at >= 0) this.#requests.splice(at, 1);
  }
}
