import { type PageIndex, type PageRange } from './address.js';
import { type FaultPort } from './backend.js';
import { type Supports } from './capability.js';
import { DemandPagingError, asDemandPagingError } from './error.js';
import { FetchesInFlight, type FetchRequest } from './fetches-in-flight.js';
import { type Installer } from './installer.js';
import { type MemoryLayout } from './layout.js';
import { type FetchReason, type ResolverEvent } from './resolver-protocol.js';
import { type PagerPolicy } from './policy.js';
import { type RangeJob } from './range-job.js';
import { type ZeroRange, zeroPages, zerosOf } from './read-answer.js';
import { isPromise, type PageSource } from './source.js';
import { COUNTER, type Counters } from './statistics.js';
import { type InstallablePages } from './installable-pages.js';

/** An answer of the wrong length is no outage: waiting longer does not mend it. */
const LENGTH_RETRIES = 3;

/**
 * Whether a failed fetch is given up. Its time is the pauses and time-outs it was made to wait for, not the
 * clock's: a process that was stopped meanwhile has not waited for its source.
 */
function isForGood(
  { attempt, spent_ms }: FetchRequest,
  { code }: DemandPagingError,
  { retries, retryFor_ms }: PagerPolicy,
): boolean {
  const most = code === 'SOURCE_LENGTH' ? Math.min(retries, LENGTH_RETRIES) : retries;
  return attempt >= most || spent_ms >= retryFor_ms;
}

/** What its owner does about what became of a fetch. */
export interface FetchingEvents {
  /** These pages must be served again, each by itself: as a window they were unavailable. */
  again(page: PageIndex, takenAt_ms: number): void;
  /** Pages may have become free for the program's requests to take. */
  freed(): void;
  /** The source has failed for good, for pages that accesses wait for. */
  lost(pages: PageRange, error: DemandPagingError): void;
  /** There is no safe way on. */
  broken(error: DemandPagingError): void;
  /** Something asynchronous is ready for the next turn. */
  work(): void;
}

export interface FetchingOptions {
  readonly layout: MemoryLayout;
  readonly port: FaultPort;
  readonly supports: Supports;
  readonly source: PageSource;
  readonly policy: PagerPolicy;
  readonly counters: Counters;
  readonly installer: Installer;
  readonly installable: InstallablePages;
  readonly events: FetchingEvents;
  notify(event: ResolverEvent): void;
  latency?(elapsed_ns: number): void;
  reading?(): void;
  now(): number;
}

/** Contents of a request's pages. */
interface FetchedContents {
  /** Where they lie: an offset into staging, or an address where `direct`. */
  readonly from: number;
  readonly direct: boolean;
  /** Set for each page that is zeros, and not to be found there. Undefined: none is. */
  readonly zeros: Uint8Array | undefined;
}

/** The longest run of pages from `at` that are all zeros, or that all are not. */
function runFrom(
  at: PageIndex,
  end: PageIndex,
  first: PageIndex,
  zeros: Uint8Array | undefined,
): { readonly zero: boolean; readonly end: PageIndex } {
  if (!zeros) return { zero: false, end };
  const zero = zeros[at - first]!;
  let stop = at + 1;
  while (stop < end && zeros[stop - first] === zero) stop++;
  return { zero: zero === 1, end: stop };
}

/**
 * Gets contents from the source and installs them where they are still installable; retries and narrows what
 * failed.
 */
export class Fetching {
  readonly inFlight: FetchesInFlight;
  readonly #o: FetchingOptions;
  /** Pages to fetch alone: fetching their neighbourhood failed. */
  readonly #noReadahead = new Set<PageIndex>();
  #ended = false;

  constructor(options: FetchingOptions) {
    this.#o = options;
    const { source, layout, policy, events } = options;
    const limits = { requests: policy.maxInFlight, ahead_bytes: policy.maxAhead_bytes };
    this.inFlight = new FetchesInFlight(source, layout, policy.sourceTimeout_ms, limits, {
      fetched: (request, bytes, zeros) => this.#fetched(request, bytes, zeros),
      failed: (request, error) => this.#attemptFailed(request, error),
      work: () => events.work(),
      reading: () => options.reading?.(),
    });
  }

  /** Brings what an access waits for, and what is fetched around it. */
  demand(page: PageIndex, cached: boolean, takenAt_ms: number): void {
    const noReadahead = cached || (this.#noReadahead.size > 0 && this.#noReadahead.has(page));
    const pages = noReadahead ? { first: page, count: 1 } : this.#o.installable.window(page);
    this.#fetch(this.#fitting(pages, page), page, 'demand', cached, takenAt_ms, undefined);
  }

  /** Fetches the next chunk of a job. */
  chunk(pages: PageRange, job: RangeJob): void {
    this.#fetch(pages, -1, job.why, false, 0, job);
  }

  /** Nothing is fetched any more: what is in flight is cancelled, and a failed fetch is not retried. */
  end(): void {
    this.#ended = true;
    this.inFlight.clear();
  }

  /** As much of a run as staging holds, with the page that is waited for, or from its start. */
  #fitting(pages: PageRange, demand: PageIndex): PageRange {
    const most = this.mostPages(pages.first);
    if (pages.count <= most) return pages;
    return {
      first: Math.max(pages.first, Math.min(demand, pages.first + pages.count - most)),
      count: most,
    };
  }

  /** How many pages staging holds, at a place. */
  mostPages(page: PageIndex): number {
    const { layout, port } = this.#o;
    return Math.max(1, Math.floor(port.staging.length / layout.regionOf(page).pageSize));
  }

  #fetch(
    pages: PageRange,
    demand: PageIndex,
    why: FetchReason,
    cached: boolean,
    takenAt_ms: number,
    job: RangeJob | undefined,
  ): void {
    const { counters, layout, source } = this.#o;
    const bytes = pages.count * layout.regionOf(pages.first).pageSize;
    counters.add(COUNTER.fetches);
    const request: FetchRequest = {
      pages,
      demand,
      why,
      cached,
      takenAt_ms,
      job,
      attempt: 0,
      spent_ms: 0,
      due_ms: 0,
      resting: false,
      cancelled: false,
    };
    const offset = layout.sourceByteOf(pages.first);
    const address = this.#addressOf(offset, bytes);
    if (address) return this.#install(request, { from: address, direct: true, zeros: undefined });
    if (source.synchronous) return this.#readNow(request, offset, bytes);
    this.inFlight.ask(request, this.#o.now());
    counters.max(COUNTER.maxInFlight, this.inFlight.count);
  }

  #addressOf(offset: number, bytes: number): number | undefined {
    const { source, supports } = this.#o;
    if (!supports.directCopy || !source.address) return undefined;
    try {
      return source.address(offset, bytes);
    } catch {
      return undefined; // reading it will say why
    }
  }

  /** The source is synchronous: read into staging at once, without a buffer between. */
  #readNow(request: FetchRequest, offset: number, bytes: number): void {
    const { installer, source, events } = this.#o;
    installer.makeRoom(bytes);
    const { into, from } = installer.stage(bytes);
    let zeros: readonly ZeroRange[] | DemandPagingError;
    this.#o.reading?.();
    try {
      const given = source.read(offset, into);
      // A promise could write into staging at any later time: there is no safe way on.
      if (isPromise(given))
        return events.broken(
          new DemandPagingError('SOURCE_FAILED', 'a synchronous source answered with a promise'),
        );
      zeros = zerosOf(given, bytes);
    } catch (cause) {
      zeros = asDemandPagingError(cause, 'SOURCE_FAILED', 'the source failed');
    } finally {
      this.#o.reading?.();
    }
    if (!(zeros instanceof DemandPagingError))
      return this.#install(request, this.#contents(request, into, from, zeros));
    installer.unstage(bytes);
    this.#attemptFailed(request, zeros);
  }

  #fetched(request: FetchRequest, bytes: Uint8Array, zeros: readonly ZeroRange[]): void {
    const { installer } = this.#o;
    // Nothing to stage, where everything is zeros.
    if (!request.cached && zeros[0]?.length === bytes.length)
      return this.#install(request, this.#contents(request, bytes, 0, zeros));
    installer.makeRoom(bytes.length);
    const { into, from } = installer.stage(bytes.length);
    into.set(bytes);
    this.#install(request, this.#contents(request, into, from, zeros));
  }

  /**
   * What is staged, and which of its pages are zeros. What the page cache has is written over, with zeros,
   * too.
   */
  #contents(
    { pages, cached }: FetchRequest,
    bytes: Uint8Array,
    from: number,
    zeros: readonly ZeroRange[],
  ): FetchedContents {
    if (zeros.length === 0) return { from, direct: false, zeros: undefined };
    if (cached) for (const { start, length } of zeros) bytes.fill(0, start, start + length);
    const { pageSize } = this.#o.layout.regionOf(pages.first);
    return { from, direct: false, zeros: cached ? undefined : zeroPages(zeros, bytes, pageSize) };
  }

  /** Installs what was fetched where it is still wanted. */
  #install(request: FetchRequest, contents: FetchedContents): void {
    const { layout, counters, installable } = this.#o;
    const { pages, demand } = request;
    const { pageSize } = layout.regionOf(pages.first);
    const holes = contents.zeros?.reduce((sum, zero) => sum + zero, 0) ?? 0;
    counters.add(COUNTER.fetched_bytes, (pages.count - holes) * pageSize);
    // The states can have changed since a synchronous read began only by what was discarded while it made
    // room.
    const isInstallable = demand >= 0 && installable.next(demand, demand + 1) === demand;
    const around = counters.get('aroundPages');
    this.#installData(request, contents);
    if (holes > 0) this.#installZeros(request, contents.zeros!);
    if (this.#noReadahead.size > 0) this.#noReadahead.delete(demand);
    request.job?.settled();
    if (demand >= 0) this.#served(request);
    // It was counted with its neighbours when it was installed: where it was not, there is nothing to take
    // off.
    if (isInstallable && counters.get('aroundPages') > around) {
      counters.add(COUNTER.demandPages);
      counters.add(COUNTER.aroundPages, -1);
    }
  }

  #installData({ pages, why, cached }: FetchRequest, { from, direct, zeros }: FetchedContents): void {
    const { layout, installable, installer } = this.#o;
    const { pageSize } = layout.regionOf(pages.first);
    const stop = pages.first + pages.count;
    for (let at = installable.next(pages.first, stop); at < stop;) {
      const run = runFrom(at, installable.nextNotInstallable(at, stop), pages.first, zeros);
      if (!run.zero)
        installer.contents(
          { first: at, count: run.end - at },
          from + (at - pages.first) * pageSize,
          direct,
          why,
          cached,
        );
      at = installable.next(run.end, stop);
    }
  }

  /**
   * After the data: zeros may need staging, and what is staged for rows that are not pushed yet would be
   * lost.
   */
  #installZeros({ pages, why }: FetchRequest, zeros: Uint8Array): void {
    const { installable, installer, counters } = this.#o;
    const stop = pages.first + pages.count;
    for (let at = installable.next(pages.first, stop); at < stop;) {
      const run = runFrom(at, installable.nextNotInstallable(at, stop), pages.first, zeros);
      if (run.zero) {
        installer.zero({ first: at, count: run.end - at }, why);
        counters.add(COUNTER.holePages, run.end - at);
      }
      at = installable.next(run.end, stop);
    }
  }

  /** The waiting access is woken before anything else is begun. */
  #served({ takenAt_ms }: FetchRequest): void {
    this.#o.installer.flush();
    this.#o.latency?.(Math.max(1, Math.round((this.#o.now() - takenAt_ms) * 1e6)));
  }

  #attemptFailed(request: FetchRequest, error: DemandPagingError): void {
    const { policy, counters, notify, events, now } = this.#o;
    const { pages, demand, why } = request;
    if (this.#ended) return;
    if (pages.count > 1 && why !== 'prefetch') return this.#narrow(request);
    if (error.code === 'SOURCE_TIMEOUT') request.spent_ms += policy.sourceTimeout_ms;
    if (isForGood(request, error, policy)) {
      request.job?.settled(pages.count);
      counters.add(COUNTER.sourceFailures);
      if (why === 'prefetch') return this.#prefetchFailed(pages, error);
      this.#noReadahead.delete(demand);
      return events.lost(pages, error);
    }
    counters.add(COUNTER.retries);
    const pause_ms = Math.min(policy.retryDelay_ms * 2 ** request.attempt, policy.maxRetryDelay_ms);
    this.inFlight.rest(request, now(), pause_ms);
    request.spent_ms += pause_ms;
    request.attempt++;
    notify({ kind: 'retrying', pages, attempt: request.attempt, error: error.toPlain() });
  }

  /**
   * The program asked for none of these pages by name: the failure is reported, and accesses that came to
   * wait meanwhile are woken to fault again.
   */
  #prefetchFailed(pages: PageRange, error: DemandPagingError): void {
    this.#o.notify({ kind: 'source-failed', pages, error: error.toPlain() });
    this.#o.installer.wake(pages);
    this.#o.events.freed();
  }

  /** A window failed: only what is really wanted is worth retrying, page by page. */
  #narrow({ pages, demand, why, takenAt_ms, job }: FetchRequest): void {
    const { installer, events, now } = this.#o;
    const needed =
      why === 'demand' ? [demand] : Array.from({ length: pages.count }, (_, i) => pages.first + i);
    job?.settled(pages.count);
    for (const page of needed) {
      this.#noReadahead.add(page);
      events.again(page, takenAt_ms || now());
    }
    events.freed();
    if (why !== 'demand') return; // every page is queued by itself now, and with it the accesses that wait
    // Accesses that came to wait for one of the other pages meanwhile are woken to fault again. Not the
    // demanded page's accessor: woken, it would fault anew, and no longer wait when its failure is reported.
    const after = pages.first + pages.count - (demand + 1);
    if (demand > pages.first) installer.wake({ first: pages.first, count: demand - pages.first });
    if (after > 0) installer.wake({ first: demand + 1, count: after });
  }
}
