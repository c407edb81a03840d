import { performance } from 'node:perf_hooks'; // the global is a getter, and this is called twice a fault
import { match } from 'ts-pattern';
import { type PageIndex, type PageRange } from './address.js';
import { type FaultPort, type Wait } from './backend.js';
import { type Supports } from './capability.js';
import { DemandPagingError, asDemandPagingError } from './error.js';
import { Drops } from './drops.js';
import { FaultBatch, type MemoryEvent, ROW } from './fault.js';
import { FaultCensus } from './fault-census.js';
import { FaultQueue } from './fault-queue.js';
import { type FetchRequest, Fetcher, lengthError } from './fetcher.js';
import { Installer } from './installer.js';
import { type MemoryLayout } from './layout.js';
import {
  type Command,
  type CommandReply,
  type FetchReason,
  type MissingAtClose,
  type Notice,
} from './notice.js';
import { PageLedger } from './page-ledger.js';
import { eachMissing, perRegion } from './page-runs.js';
import { type PageStates } from './page-states.js';
import { type PagerPolicy } from './policy.js';
import { Protection } from './protection.js';
import { type RangeJob } from './range-job.js';
import { RangeJobs } from './range-jobs.js';
import { type PageSource } from './source.js';
import { COUNTER, type Counters } from './statistics.js';
import { WantedPages } from './wanted-pages.js';

export interface ResolverOptions {
  readonly layout: MemoryLayout;
  readonly states: PageStates;
  /** The resolver's shard: the only pages it serves and whose states it writes. */
  readonly pages: PageRange;
  readonly port: FaultPort;
  readonly supports: Supports;
  readonly source: PageSource;
  readonly policy: PagerPolicy;
  readonly counters: Counters;
  notify(notice: Notice): void;
  /** A fault was resolved this long after it was taken. */
  latency?(elapsed_ns: number): void;
  /** Called before and after each read of a synchronous source, which may never come back. */
  reading?(): void;
  /** Milliseconds of a monotonic clock. */
  now?(): number;
}

const within = (page: PageIndex, { first, count }: PageRange): boolean =>
  page >= first && page < first + count;

/**
 * The paging engine: takes faults and events from a port, decides, fetches, installs. No I/O of its own,
 * no thread, no timer: whoever owns it calls {@link turn}, so the same engine runs under a scheduler
 * on the model and in a worker on a real kernel.
 *
 * Order, and why it is right:
 * - All events of a batch are applied before any of its faults is served, and every fault is judged by
 *   the states at the moment it is served, not when it was taken. So a fault read ahead of an earlier
 *   removal gets zeros. A removal not yet read makes the kernel answer EAGAIN, upon which the events are
 *   read and the rows judged again.
 * - Presence is set after the installing call returned, and cleared before the pages go.
 * - A page that is frozen, being dropped or in flight is not served: its accessor stays blocked in the
 *   kernel and is woken, to fault anew, by whatever ends that state. Nothing about a waiter is
 *   remembered, so nothing can be forgotten: "wake, and let it ask again" is the one recovery.
 * - A page once removed keeps its `removed` mark when zeros are installed: the thread that removes it
 *   drops the page only after its event was read, which can take those zeros away once more.
 */
export class Resolver {
  readonly #o: ResolverOptions;
  readonly #batch: FaultBatch;
  readonly #installer: Installer;
  readonly #fetcher: Fetcher;
  readonly #now: () => number;
  /** Pages that accessors wait for, not yet judged. */
  readonly #queue = new FaultQueue();
  /** Pages to fetch alone: fetching their neighbourhood failed. */
  readonly #alone = new Set<PageIndex>();
  readonly #drops = new Drops();
  readonly #jobs = new RangeJobs();
  readonly #wanted: WantedPages;
  readonly #ledger: PageLedger;
  readonly #protection: Protection;
  readonly #census: FaultCensus;
  #stopped: DemandPagingError | undefined;
  #ended = false;
  /** Events taken and not yet applied, oldest first. */
  readonly #events: MemoryEvent[] = [];
  /** Answers to commands whose rows are still pending. */
  #owed: (() => void)[] = [];

  /** Called when an asynchronous answer is ready for the next turn. */
  onWork: () => void = () => {};

  constructor(options: ResolverOptions) {
    this.#o = options;
    this.#now = options.now ?? (() => performance.now());
    this.#batch = new FaultBatch(options.policy.batchRows);
    this.#installer = new Installer({
      ...options,
      rows: Math.max(options.policy.batchRows, 4),
      events: {
        present: (pages, why) => this.#ledger.installed(pages, why),
        poisoned: (pages) => this.#poisoned(pages),
        vanished: (pages) => this.#vanished(pages),
        changing: () => this.#takeEvents(),
        failed: (pages, error) => this.#giveUp(pages, error),
        gone: (pages, errno) => this.#gone(pages, errno),
      },
    });
    this.#fetcher = new Fetcher(options.source, options.layout, options.policy.sourceTimeoutMs, {
      fetched: (request, bytes) => this.#fetched(request, bytes),
      failed: (request, error) => this.#attemptFailed(request, error),
      work: () => this.onWork(),
      reading: () => options.reading?.(),
    });
    this.#wanted = new WantedPages({
      ...options,
      drops: this.#drops,
      faultAroundPages: options.policy.faultAroundPages,
      clip: (run, keep) => this.#fetcher.clip(run, keep),
    });
    const notify = (notice: Notice): void => options.notify(notice);
    this.#ledger = new PageLedger({ ...options, notify });
    this.#census = new FaultCensus(options.counters, notify);
    this.#protection = new Protection({
      ...options,
      notify,
      installer: this.#installer,
      cancel: (pages) => this.#cancel(pages),
    });
  }

  /** It has been told to end and has ended: no more turns are needed. */
  get ended(): boolean {
    return this.#ended;
  }

  /** There is something to do without waiting for the port. */
  get busy(): boolean {
    const room = this.#fetcher.inFlight < this.#o.policy.maxInFlight;
    if (this.#installer.pending || this.#fetcher.hasAnswers) return true;
    if (this.#stopped) return this.#queue.length > 0;
    return room && (this.#queue.length > 0 || this.#jobs.ensuringLeft() || this.#prefetchReady());
  }

  /** When the next retry or time-out is due, on the resolver's clock; Infinity for never. */
  get nextDueMs(): number {
    return this.#fetcher.nextDueMs;
  }

  /**
   * Takes what the port has, waiting as `wait` says while there is nothing else to do, and deals with
   * it. Blocks in the port only, and in a synchronous source. Returns whether anything was done.
   */
  turn(wait: Wait): boolean {
    if (this.#ended) return false;
    this.#o.counters.add(COUNTER.turns);
    const idle = !this.busy;
    const taken = this.#take(idle ? wait : 'none');
    if (this.#fetcher.expects) this.#fetcher.collect(this.#now());
    this.#serve();
    this.#runJobs(this.#jobs.ensuring);
    this.#installer.flush();
    if (taken === 0 && this.#queue.length === 0) this.#runJobs(this.#jobs.prefetching);
    this.#installer.flush();
    this.#jobs.finish(this.#o.states);
    this.#payOwed();
    return taken > 0 || !idle;
  }

  /**
   * Carries out a command of the control thread. Never blocks. `reply` is called once, when it is done:
   * before this returns, or inside a later turn. It is a callback and no promise because a resolver that blocks in its port never gets round to promises.
   */
  execute(command: Command, reply: (reply: CommandReply) => void): void {
    try {
      if (this.#stopped && !['end', 'thaw', 'drop-end', 'listen', 'thread'].includes(command.command)) {
        throw new DemandPagingError('STOPPED', 'the pager has stopped', { cause: this.#stopped });
      }
      const { states } = this.#o;
      if (command.command === 'ensure') this.#jobs.start('ensured', command.ranges, states, reply);
      else if (command.command === 'prefetch') this.#jobs.start('prefetch', command.ranges, states, reply);
      else {
        this.#carryOut(command);
        this.#installer.flush();
        this.#owed.push(() => reply({ ok: true, value: undefined }));
        this.#payOwed();
      }
    } catch (thrown) {
      reply({
        ok: false,
        error: asDemandPagingError(thrown, 'KERNEL', `the command ${command.command} failed`).toPlain(),
      });
    }
  }

  #carryOut(command: Exclude<Command, { command: 'ensure' | 'prefetch' }>): void {
    match(command)
      .with({ command: 'mark-present' }, ({ ranges }) => ranges.forEach((pages) => this.#markPresent(pages)))
      .with({ command: 'drop-begin' }, ({ ranges, then }) =>
        ranges.forEach((pages) => this.#dropBegin(pages, then)),
      )
      .with({ command: 'drop-end' }, ({ ranges }) => this.#dropEnd(ranges))
      .with({ command: 'freeze' }, ({ ranges }) => this.#protection.freeze(ranges))
      .with({ command: 'thaw' }, ({ ranges }) => ranges.forEach((pages) => this.#thaw(pages)))
      .with({ command: 'poison' }, ({ ranges }) => this.#poisonRanges(ranges))
      .with({ command: 'write-protect' }, ({ ranges }) => this.#protection.writeProtect(ranges, true))
      .with({ command: 'write-unprotect' }, ({ ranges }) => this.#protection.writeProtect(ranges, false))
      .with({ command: 'thread' }, ({ thread, class: accessClass, vcpu }) =>
        this.#census.name(thread, accessClass, vcpu),
      )
      .with({ command: 'listen' }, ({ faults, installs }) => {
        this.#census.reports = faults;
        this.#ledger.reportsInstalls = installs;
      })
      .with({ command: 'end' }, ({ missing }) => this.#end(missing))
      .exhaustive();
  }

  /** The resolver can go no further: the end of the world, said out loud, with nobody left waiting if that can be helped. */
  abort(thrown: unknown): void {
    this.#stop(asDemandPagingError(thrown, 'HANDLER_DIED', 'the resolver failed'));
    // Who waits on a protected page finds nobody to lift the protection any more.
    this.#protection.lift(this.#o.pages);
    this.#settleAll();
  }

  // ── taking ──

  #take(wait: Wait): number {
    this.#batch.clear();
    // A look at the clock costs as much as a system call: not where nothing can be due.
    const timeoutMs =
      wait === 'none' ? 0 : this.#fetcher.expects ? Math.max(0, this.nextDueMs - this.#now()) : Infinity;
    const taken = this.#o.port.take(this.#batch, wait, timeoutMs);
    if (taken === 0) return 0;
    this.#decode(taken);
    this.#applyEvents();
    return taken;
  }

  /** Empties the batch before anything acts on it: acting can flush, and a flush can take again. */
  #decode(rows: number): void {
    const now = this.#now();
    let protectedPages: { page: PageIndex; kind: number }[] | undefined;
    for (let row = 0; row < rows; row++) {
      const kind = this.#batch.kind[row]!;
      if (this.#batch.isEvent(row)) {
        this.#events.push(this.#batch.event(row));
        continue;
      }
      this.#census.count(this.#batch, row);
      if (kind === ROW.missing || kind === ROW.minor)
        this.#enqueue(this.#batch.page[row]!, kind === ROW.minor, now);
      else (protectedPages ??= []).push({ page: this.#batch.page[row]!, kind });
    }
    for (const { page, kind } of protectedPages ?? []) this.#protection.met(page, kind);
  }

  /** Applies events in order. Entered again while one is applied (by a flush that took more), it goes on with the next oldest. */
  #applyEvents(): void {
    for (let event = this.#events.shift(); event; event = this.#events.shift()) this.#event(event);
  }

  /** Reads everything there is, for the sake of its events; faults are queued. */
  #takeEvents(): void {
    while (this.#take('none') === this.#batch.capacity);
  }

  #enqueue(page: PageIndex, cached: boolean, takenAtMs: number): void {
    if (!this.#queue.push(page, cached, takenAtMs)) this.#o.counters.add(COUNTER.joinedFaults);
  }

  #event(event: MemoryEvent): void {
    match(event)
      .with({ kind: 'remove' }, ({ pages }) => this.#removed(pages))
      .with({ kind: 'unmap' }, ({ pages }) => this.#unmapped(pages))
      .with({ kind: 'remap' }, ({ pages, to }) => {
        this.#o.states.set('unmapped', pages, false);
        this.#o.notify({ kind: 'remapped', pages, to });
      })
      .with({ kind: 'fork' }, ({ fd }) =>
        this.#o.notify({ kind: 'forked', fd, present: this.#o.states.snapshot() }),
      )
      .exhaustive();
  }

  /** The pages' contents are void. What is in flight for them must not be installed. */
  #removed(pages: PageRange): void {
    for (const part of this.#drops.announce(pages)) this.#void(part, 'zero');
  }

  /** Nothing on its way may reach these pages any more. Whoever waits for it is woken, and asks again. */
  #cancel(pages: PageRange): void {
    this.#installer.reconsider((page) => within(page, pages));
    for (const request of this.#fetcher.drop(pages)) {
      request.job?.settled(request.pages.count);
      this.#installer.wake(request.pages);
    }
    this.#jobs.rewind();
  }

  #void(pages: PageRange, then: 'missing' | 'zero'): void {
    this.#ledger.dropped(pages, then);
    this.#cancel(pages);
    if (then === 'zero') this.#o.notify({ kind: 'removed', pages });
  }

  // ── serving ──

  #serve(): void {
    const queue = this.#queue;
    while (queue.length > 0) {
      if (!this.#stopped && this.#fetcher.inFlight >= this.#o.policy.maxInFlight) {
        return this.#o.counters.add(COUNTER.deferredFetches);
      }
      const { page, cached, takenAtMs } = queue;
      queue.shift();
      this.#servePage(page, cached, takenAtMs);
    }
  }

  #servePage(page: PageIndex, cached: boolean, takenAtMs: number): void {
    const { states, counters, supports } = this.#o;
    if (this.#wanted.isHeld(page)) return counters.add(COUNTER.heldFaults);
    // Runs for every fault: a plain switch, an order of magnitude faster than an object match.
    switch (states.stateOf(page)) {
      case 'poisoned':
        return this.#installer.poison({ first: page, count: 1 });
      case 'present':
        return this.#spurious(page, cached);
      case 'unmapped': // it is mapped after all, or nobody could have touched it
        states.set('unmapped', { first: page, count: 1 }, false);
        return this.#servePage(page, cached, takenAtMs);
      case 'removed':
        if (cached) return this.#installer.cached(page); // dropped from the mapping, kept in the page cache
        return this.#installer.zero({ first: page, count: 1 });
      case 'missing':
        if (this.#stopped) return; // cannot be poisoned, and must not be served
        if (this.#fetcher.find(page)) return counters.add(COUNTER.joinedFaults);
        if (cached && !supports.fill) return this.#installer.cached(page); // filled by whoever owns the cache
        return this.#fetch(
          cached || this.#alone.has(page) ? { first: page, count: 1 } : this.#wanted.window(page),
          page,
          'demand',
          cached,
          takenAtMs,
        );
    }
  }

  /** A fault on a page that we hold to be present: an old fault, or a page lost behind our back. */
  #spurious(page: PageIndex, cached: boolean): void {
    const { supports, port, states, counters } = this.#o;
    if (cached) return this.#installer.cached(page);
    counters.add(COUNTER.spuriousFaults);
    const pages = { first: page, count: 1 };
    // Its removal may have been carried out after we served it. Where the zeros are still there, that wakes.
    if (states.is('removed', page)) return this.#installer.zero(pages);
    if (supports.residency && port.resident(page)) return this.#installer.wake(pages);
    // Swapped out, or gone? Poison tells, and reads the events if the memory is changing.
    if (supports.verbs.includes('poison')) return this.#installer.probe(page);
    if (supports.residency) this.#takeEvents(); // its removal may be waiting to be read
    if (supports.residency && states.isPresent(page) && !port.resident(page)) return this.#vanished(pages);
    this.#installer.wake(pages); // it faults again if the page has gone meanwhile
  }

  /** A present page is physically gone, and no event said so. */
  #vanished(pages: PageRange): void {
    const { supports, layout } = this.#o;
    this.#ledger.vanished(pages);
    if (supports.verbs.includes('poison')) this.#poisoned(pages); // by what found it out
    const { start, length } = layout.gpaRangeOf(pages);
    this.#giveUp(
      pages,
      new DemandPagingError('PAGE_VANISHED', 'a present page was dropped behind the pager', {
        range: { start, length },
        hint: "Punch holes and discard memory only through the pager's remove() and withdraw()",
      }),
    );
  }

  // ── fetching ──

  #fetch(
    pages: PageRange,
    demand: PageIndex,
    why: FetchReason,
    cached: boolean,
    takenAtMs: number,
    job?: RangeJob,
  ): void {
    const { counters, layout, source } = this.#o;
    const { pageSize } = layout.regionOf(pages.first);
    const run = this.#fitting(pages, demand, pageSize);
    counters.add(COUNTER.fetches);
    const request: FetchRequest = {
      pages: run,
      demand,
      why,
      cached,
      takenAtMs,
      job,
      attempt: 0,
      dueMs: 0,
      resting: false,
      dropped: false,
    };
    const offset = layout.sourceByteOf(run.first);
    const address = this.#addressOf(offset, run.count * pageSize);
    if (address) return this.#install(request, address, true);
    if (source.synchronous) return this.#readNow(request, offset, run.count * pageSize);
    this.#fetcher.ask(request, this.#now());
    counters.max(COUNTER.maxInFlight, this.#fetcher.inFlight);
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

  /** As much of a run as staging holds, with the page that is waited for. */
  #fitting(pages: PageRange, demand: PageIndex, pageSize: number): PageRange {
    const most = Math.max(1, Math.floor(this.#o.port.staging.length / pageSize));
    if (pages.count <= most) return pages;
    const first =
      demand < 0 ? pages.first : Math.max(pages.first, Math.min(demand, pages.first + pages.count - most));
    return { first, count: most };
  }

  /** The source is synchronous: read into staging at once, without a buffer between. */
  #readNow(request: FetchRequest, offset: number, bytes: number): void {
    this.#installer.makeRoom(bytes);
    const { into, from } = this.#installer.stage(bytes);
    let wrong: DemandPagingError | undefined;
    this.#o.reading?.();
    try {
      const given = this.#o.source.read(offset, into);
      // A promise could write into staging at any later time: there is no safe way on.
      if (typeof given !== 'number')
        return this.#stop(
          new DemandPagingError('SOURCE_FAILED', 'a synchronous source answered with a promise'),
        );
      wrong = lengthError(given, bytes);
    } catch (cause) {
      wrong = asDemandPagingError(cause, 'SOURCE_FAILED', 'the source failed');
    } finally {
      this.#o.reading?.();
    }
    if (!wrong) return this.#install(request, from, false);
    this.#installer.unstage(bytes);
    this.#attemptFailed(request, wrong);
  }

  #fetched(request: FetchRequest, bytes: Uint8Array): void {
    this.#installer.makeRoom(bytes.length);
    const { into, from } = this.#installer.stage(bytes.length);
    into.set(bytes);
    this.#install(request, from, false);
  }

  /** Installs what was fetched where it is still wanted. */
  #install(request: FetchRequest, from: number, direct: boolean): void {
    const { layout, counters } = this.#o;
    const { pages, why, cached, demand } = request;
    const { pageSize } = layout.regionOf(pages.first);
    counters.add(COUNTER.fetchedBytes, pages.count * pageSize);
    // Nothing can have changed since a synchronous read began, but for what was dropped while it made room.
    if (demand >= 0 && this.#wanted.next(demand, demand + 1) === demand) {
      counters.add(COUNTER.demandPages);
      counters.add(COUNTER.aroundPages, -1); // counted with its neighbours when it is installed
    }
    const stop = pages.first + pages.count;
    for (let at = this.#wanted.next(pages.first, stop); at < stop;) {
      const end = this.#wanted.nextUnwanted(at, stop);
      this.#installer.contents(
        { first: at, count: end - at },
        from + (at - pages.first) * pageSize,
        direct,
        why,
        cached,
      );
      at = this.#wanted.next(end, stop);
    }
    if (this.#alone.size > 0) this.#alone.delete(demand);
    request.job?.settled();
    if (demand >= 0) this.#served(request);
  }

  /** Whoever waits is let go before anything else is begun. */
  #served({ takenAtMs }: FetchRequest): void {
    this.#installer.flush();
    this.#o.latency?.(Math.max(1, Math.round((this.#now() - takenAtMs) * 1e6)));
  }

  #attemptFailed(request: FetchRequest, error: DemandPagingError): void {
    const { policy, counters } = this.#o;
    const { pages, demand, why } = request;
    if (this.#stopped) return;
    if (pages.count > 1 && why !== 'prefetch') return this.#narrow(request);
    if (request.attempt >= policy.retries) {
      request.job?.settled(pages.count);
      counters.add(COUNTER.sourceFailures);
      if (why === 'prefetch') return this.#prefetchFailed(pages, error);
      this.#alone.delete(demand);
      return this.#giveUp(pages, error);
    }
    counters.add(COUNTER.retries);
    this.#fetcher.rest(request, this.#now() + policy.retryDelayMs * 2 ** request.attempt);
    request.attempt++;
    this.#o.notify({ kind: 'retrying', pages, attempt: request.attempt, error: error.toPlain() });
  }

  /** Nobody asked for these pages by name: the failure is said, and whoever came to wait meanwhile asks again. */
  #prefetchFailed(pages: PageRange, error: DemandPagingError): void {
    this.#o.notify({ kind: 'source-failed', pages, error: error.toPlain() });
    this.#installer.wake(pages);
    this.#jobs.rewind();
  }

  /** A window failed: only what is really wanted is worth retrying, page by page. */
  #narrow({ pages, demand, why, takenAtMs, job }: FetchRequest): void {
    const wanted =
      why === 'demand' ? [demand] : Array.from({ length: pages.count }, (_, i) => pages.first + i);
    job?.settled(pages.count);
    for (const page of wanted) {
      this.#alone.add(page);
      this.#enqueue(page, false, takenAtMs || this.#now());
    }
    this.#jobs.rewind();
    if (why !== 'demand') return; // every page is asked for by itself now, and with it whoever waits
    // Whoever came to wait for one of the others meanwhile asks again. Not the demanded page's accessor:
    // woken, it would fault anew and be gone whenever its failure comes to be told.
    const after = pages.first + pages.count - (demand + 1);
    if (demand > pages.first) this.#installer.wake({ first: pages.first, count: demand - pages.first });
    if (after > 0) this.#installer.wake({ first: demand + 1, count: after });
  }

  // ── outcomes ──

  #poisoned(pages: PageRange): void {
    this.#jobs.rejectCovering(pages, 'PAGE_POISONED', 'the page was poisoned');
    this.#ledger.poisoned(pages);
  }

  /** These pages cannot be had. Those who wait must learn it; nobody gets zeros. */
  #giveUp(pages: PageRange, error: DemandPagingError): void {
    this.#o.notify({ kind: 'source-failed', pages, error: error.toPlain() });
    match(this.#o.policy.onSourceFailure)
      .with('stop', () => this.#stop(error))
      .with('poison', () => this.#installer.poison(pages))
      .with('fail', () => this.#installer.fail(pages))
      .exhaustive();
    this.#jobs.rejectCovering(pages, 'PAGE_FAILED', 'the page could not be had', error);
  }

  #gone(pages: PageRange, errno: number): void {
    const ESRCH = 3;
    if (errno === ESRCH)
      return this.#stop(
        new DemandPagingError('MEMORY_GONE', 'the process whose memory is served has ended', { errno }),
      );
    this.#unmapped(pages);
  }

  /** There is no memory for these pages any more. Whoever still waits for them asks again, and learns it. */
  #unmapped(pages: PageRange): void {
    this.#ledger.unmapped(pages);
    this.#cancel(pages);
    this.#installer.wake(pages);
    this.#jobs.rejectCovering(pages, 'MEMORY_GONE', 'the page is no longer mapped');
    this.#o.notify({ kind: 'unmapped', pages });
  }

  #stop(error: DemandPagingError): void {
    if (this.#stopped || this.#ended) return;
    this.#stopped = error;
    this.#fetcher.drop(this.#o.pages);
    const poison = this.#o.supports.verbs.includes('poison') && error.code !== 'MEMORY_GONE';
    this.#jobs.rejectAll('STOPPED', 'the pager has stopped', error);
    // Said before the poison is seen, so that whoever handles the SIGBUS finds the reason.
    this.#o.notify({ kind: 'stopped', error: error.toPlain(), waiters: poison ? 'poisoned' : 'blocked' });
    if (poison) this.#poisonMissing(this.#o.pages);
  }

  // ── jobs ──

  #prefetchReady(): boolean {
    return this.#jobs.prefetchLeft() && this.#fetcher.inFlight < Math.max(1, this.#o.policy.maxInFlight / 2);
  }

  /** One piece of the first job that has one: of a prefetch when nobody waits, of what the program asked for in any case. */
  #runJobs(jobs: readonly RangeJob[]): void {
    for (const job of jobs) {
      const limit =
        job.why === 'prefetch' ? Math.max(1, this.#o.policy.maxInFlight / 2) : this.#o.policy.maxInFlight;
      while (!job.exhausted && this.#fetcher.inFlight < limit) {
        if (this.#piece(job) && this.#o.source.synchronous) return; // look for faults between pieces
      }
    }
  }

  /** Takes the next piece of a job; false if there was nothing to fetch in what it looked at. */
  #piece(job: RangeJob): boolean {
    const { states, layout, policy } = this.#o;
    const page = job.next(states);
    if (page === undefined) return false;
    const state = states.stateOf(page);
    if (state === 'poisoned' && job.why === 'ensured')
      job.reject(new DemandPagingError('PAGE_POISONED', 'the page is poisoned'));
    if (state === 'unmapped' && job.why === 'ensured')
      job.reject(new DemandPagingError('MEMORY_GONE', 'the page is no longer mapped'));
    if (
      state !== 'missing' ||
      this.#wanted.isHeld(page) ||
      this.#fetcher.find(page) ||
      this.#queue.has(page)
    ) {
      job.pass(1); // before the zeros: what their installing leads to may rewind the job
      if (state === 'removed' && job.why === 'ensured' && !this.#wanted.isHeld(page))
        this.#installer.zero({ first: page, count: 1 });
      return false;
    }
    const region = layout.regionOf(page);
    const end = Math.min(page + policy.prefetchPages, job.end, region.firstPage + region.pageCount);
    const run = this.#fitting(this.#wanted.fetchable(page, end, page), -1, region.pageSize);
    job.take(run.count);
    this.#fetch(run, -1, job.why, false, 0, job);
    return true;
  }

  // ── commands ──

  #markPresent(pages: PageRange): void {
    this.#ledger.markPresent(pages);
    this.#cancel(pages);
    this.#installer.wake(pages);
  }

  #dropBegin(pages: PageRange, then: 'missing' | 'zero'): void {
    this.#drops.begin(pages);
    this.#void(pages, then);
  }

  #dropEnd(ranges: readonly PageRange[]): void {
    for (const pages of ranges) {
      this.#drops.end(pages);
      this.#rejudge(pages);
    }
  }

  /** Wakes whoever was held in these pages, so that they fault anew, and lets waiting jobs look again. */
  #rejudge(pages: PageRange): void {
    this.#installer.wake(pages);
    this.#jobs.rewind();
  }

  #thaw(pages: PageRange): void {
    this.#protection.thaw(pages);
    this.#rejudge(pages);
  }

  #poisonRanges(ranges: readonly PageRange[]): void {
    if (!this.#o.supports.verbs.includes('poison'))
      throw new DemandPagingError('NOT_SUPPORTED', 'this backend does not support poison');
    for (const pages of ranges) {
      this.#cancel(pages);
      this.#poisonMissing(pages);
    }
  }

  #poisonMissing(pages: PageRange): void {
    eachMissing(this.#o.layout, this.#o.states, pages, (missing) => this.#installer.poison(missing));
  }

  /** Wakes everyone, and leaves no row pending. Ends, because each flush reads the events that rows wait for. */
  #settleAll(): void {
    for (const pages of perRegion(this.#o.layout, this.#o.pages)) this.#installer.wake(pages);
    while (this.#installer.pending) this.#installer.flush();
  }

  /** Answers the commands whose rows have all been carried out. */
  #payOwed(): void {
    if (this.#owed.length === 0 || this.#installer.pending) return;
    const owed = this.#owed;
    this.#owed = [];
    for (const pay of owed) pay();
  }

  #end(missing: MissingAtClose): void {
    this.#fetcher.drop(this.#o.pages);
    this.#queue.clear();
    this.#jobs.rejectAll('CLOSED', 'the pager was closed');
    const { layout, states, pages: shard } = this.#o;
    if (missing === 'poison' && !this.#stopped) this.#poisonMissing(shard);
    if (missing === 'zero') eachMissing(layout, states, shard, (pages) => this.#installer.zero(pages));
    this.#settleAll();
    this.#ended = true;
    this.#o.port.close();
  }
}
