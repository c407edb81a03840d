import { performance } from 'node:perf_hooks'; // the global is a getter, and this is called twice a fault
import { match } from 'ts-pattern';
import { type PageIndex, type PageRange } from './address.js';
import { type FaultPort, type Wait } from './backend.js';
import { type Supports } from './capability.js';
import { DemandPagingError, asDemandPagingError } from './error.js';
import { type AfterDiscard, type DiscardRange, Discards } from './discards.js';
import { FaultBatch, type MemoryEvent, type OutsideFault, ROW } from './fault.js';
import { OutsideFaults } from './outside-faults.js';
import { FaultStatistics } from './fault-statistics.js';
import { FaultQueue } from './fault-queue.js';
import { Fetching } from './fetching.js';
import { UnmappedPages } from './unmapped-pages.js';
import { Installer } from './installer.js';
import { JobChunks } from './job-chunks.js';
import { hasPageCache, type MemoryLayout, pagesOf, type Region } from './layout.js';
import {
  type Command,
  type CommandReply,
  type MissingAtClose,
  type ResolverEvent,
} from './resolver-protocol.js';
import { PageAccounting } from './page-accounting.js';
import { within, without } from './page-range.js';
import { eachMissing, eachPoisoned, eachPresent, perRegion } from './page-runs.js';
import { type PageStates, type PageStatesSnapshot } from './page-states.js';
import { type PagerPolicy } from './policy.js';
import { Protection } from './protection.js';
import { RangeJobs } from './range-jobs.js';
import { type PageSource } from './source.js';
import { COUNTER, type Counters } from './statistics.js';
import { InstallablePages } from './installable-pages.js';

export interface ResolverOptions {
  readonly layout: MemoryLayout;
  readonly states: PageStates;
  /**
   * The resolver's share: the only pages it serves and whose states it writes, until regions are added or
   * removed.
   */
  readonly pages: readonly PageRange[];
  readonly port: FaultPort;
  readonly supports: Supports;
  readonly source: PageSource;
  readonly policy: PagerPolicy;
  readonly counters: Counters;
  notify(event: ResolverEvent): void;
  /** A fault was resolved this long after it was taken. */
  latency?(elapsed_ns: number): void;
  /** Called before and after each call of the source's `read`, which may never come back. */
  reading?(): void;
  /**
   * Called with true before messages are taken from the port, and with false when their events have been
   * applied and no event is kept only in this resolver.
   */
  taking?(on: boolean): void;
  /** Called before (true) and after each batch that the port carries out. */
  installing?(on: boolean): void;
  /** Called once, when every waiting access has been let go, by command or because the resolver failed. */
  settled?(): void;
  /** Milliseconds of a monotonic clock. */
  now?(): number;
}

const ESRCH = 3;

/** Commands whose effect on a page that is being discarded begins when it has gone. */
const NEEDS_PAGES_GONE: ReadonlySet<Command['command']> = new Set(['poison', 'freeze', 'write-protect']);

/** An `end` command that leaves waiting accesses, and the unread messages with them, to another thread. */
const isLeaving = (command: Command): boolean => command.command === 'end' && command.missing === 'leave';

/**
 * The paging engine: takes faults and events from a port, decides, fetches, installs. No I/O of its own, no
 * thread, no timer: its owner calls {@link turn}, so the same engine runs under a scheduler on the model and
 * in a worker on a real kernel.
 *
 * Order, and why it is right:
 * - All events of a batch are applied before any of its faults is served, and every fault is served by the
 *   states at the moment it is served, not when it was taken. So a fault read ahead of an earlier removal
 *   gets zeros. A removal not yet read makes the kernel answer EAGAIN, upon which the events are read and the
 *   rows decided again.
 * - Presence is set after the installing call returned, and cleared before the pages go.
 * - A page that is frozen, being discarded or in flight is not served: its accessor stays blocked in the
 *   kernel and is woken, to fault anew, by the transition that ends that state. The resolver keeps no list of
 *   waiters, so none can be lost from it: "wake, and let it fault again" is the one recovery.
 * - A page once removed keeps its `removed` mark when zeros are installed: the kernel unmaps the page in the
 *   removing thread only after its event was read, which can take those zeros away once more.
 */
export class Resolver {
  readonly #o: ResolverOptions;
  /** {@link ResolverOptions.pages}, as regions have been added and removed since. */
  readonly #own: PageRange[];
  readonly #batch: FaultBatch;
  readonly #installer: Installer;
  readonly #fetching: Fetching;
  readonly #now: () => number;
  /** Pages that accessors wait for, not yet judged. */
  readonly #queue = new FaultQueue();
  readonly #discards = new Discards();
  readonly #unmappedPages = new UnmappedPages();
  /** Pages of files that were asked for once though they are held to be present. */
  readonly #recheck = new Set<PageIndex>();
  readonly #jobs = new RangeJobs();
  readonly #chunks: JobChunks;
  readonly #installable: InstallablePages;
  readonly #accounting: PageAccounting;
  readonly #protection: Protection;
  readonly #faultStatistics: FaultStatistics;
  readonly #outside: OutsideFaults;
  #stopped: DemandPagingError | undefined;
  #ended = false;
  /** Until when memory that changes is waited for. */
  #deadline_ms = Infinity;
  /** How many calls of {@link #take} are active: applying events can take again. */
  #takes = 0;
  /** Events taken and not yet applied, oldest first. */
  readonly #events: MemoryEvent[] = [];
  /**
   * Replies to commands that have not been carried out: rows of theirs are pending, or they are not `ready`.
   */
  #pendingReplies: { ready(): boolean; send(): void }[] = [];

  /** Called when an asynchronous answer is ready for the next turn. */
  onWork: () => void = () => {};

  constructor(options: ResolverOptions) {
    this.#o = options;
    this.#own = [...options.pages];
    const own: readonly PageRange[] = this.#own;
    this.#now = options.now ?? (() => performance.now());
    this.#batch = new FaultBatch(options.policy.batchRows);
    this.#installer = new Installer({
      ...options,
      rows: Math.max(options.policy.batchRows, 4),
      events: {
        present: (pages, why) => {
          this.#unmappedPages.back(pages);
          this.#accounting.installed(pages, why);
        },
        poisoned: (pages) => this.#poisoned(pages),
        vanished: (pages, poisoned) => this.#vanished(pages, poisoned),
        marked: (page) => this.#protection.met(page, ROW['write-protect']),
        changing: () => this.#memoryChanges(),
        failed: (pages, error) => this.#giveUp(pages, error),
        gone: (pages, errno) => this.#gone(pages, errno),
      },
    });
    this.#installable = new InstallablePages({
      ...options,
      own,
      discards: this.#discards,
      installer: this.#installer,
      faultAroundPages: options.policy.faultAroundPages,
      clip: (run, keep) => this.#fetching.inFlight.clip(run, keep),
    });
    const notify = (event: ResolverEvent): void => options.notify(event);
    const shared = { ...options, installer: this.#installer, installable: this.#installable, notify };
    this.#fetching = new Fetching({
      ...shared,
      now: this.#now,
      events: {
        again: (page, takenAt_ms) => this.#enqueue(page, false, takenAt_ms),
        freed: () => this.#jobs.rewind(),
        lost: (pages, error) => this.#giveUp(pages, error),
        broken: (error) => this.#stop(error),
        work: () => this.onWork(),
      },
    });
    this.#chunks = new JobChunks({
      ...shared,
      jobs: this.#jobs,
      fetching: this.#fetching,
      queue: this.#queue,
    });
    this.#accounting = new PageAccounting({ ...options, own, notify });
    this.#faultStatistics = new FaultStatistics(options.counters, notify);
    this.#outside = new OutsideFaults({
      ...options,
      notify,
      again: (fault, page) => this.#inside(fault, page),
      stop: (error, left) => this.#stop(error, left),
    });
    this.#protection = new Protection({
      ...shared,
      cancel: (pages) => this.#cancel(pages, true),
    });
  }

  /** It has carried out an `end` command: no more turns are needed. */
  get ended(): boolean {
    return this.#ended;
  }

  /** There is something to do without waiting for the port. */
  get busy(): boolean {
    if (this.#installer.pending || this.#outside.waiting || this.#fetching.inFlight.hasAnswers) return true;
    const faults = this.#queue.length > 0;
    if (this.#stopped) return faults;
    return (faults && this.#fetching.inFlight.roomFor('demand') > 0) || this.#chunks.ready(!faults);
  }

  /** When the next retry or time-out is due, on the resolver's clock; Infinity for never. */
  get nextDue_ms(): number {
    return this.#fetching.inFlight.nextDue_ms;
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
    if (this.#fetching.inFlight.expects) this.#fetching.inFlight.collect(this.#now());
    if (this.#outside.waiting) {
      this.#outside.answer(this.#stopped !== undefined);
      this.#toldOfTaking();
    }
    this.#serve();
    this.#chunks.ensure();
    this.#installer.flush();
    if (taken === 0 && this.#queue.length === 0) this.#chunks.prefetch();
    this.#installer.flush();
    this.#jobs.finish(this.#o.states);
    this.#sendReadyReplies();
    return taken > 0 || !idle;
  }

  /**
   * Carries out a command of the control thread. Never blocks. `reply` is called once, when it is done:
   * before this returns, or inside a later turn. It is a callback, not a promise, because a resolver that
   * blocks in its port runs no promise jobs.
   */
  execute(command: Command, reply: (reply: CommandReply) => void): void {
    try {
      // Events that a port has read and not handed out yet precede this command: a discard's event precedes
      // the discard's end.
      if (!this.#ended && !isLeaving(command)) this.#takeEvents();
      if (
        this.#stopped &&
        !['end', 'stop', 'thaw', 'discard-end', 'listen', 'thread', 'remove-regions'].includes(
          command.command,
        )
      ) {
        throw new DemandPagingError('STOPPED', 'the pager has stopped', { cause: this.#stopped });
      }
      const { states } = this.#o;
      if (command.command === 'ensure') this.#jobs.start('ensured', command.ranges, states, reply);
      else if (command.command === 'prefetch') this.#jobs.start('prefetch', command.ranges, states, reply);
      else {
        const ready = this.#readyOf(command);
        this.#carryOut(command);
        this.#installer.flush();
        this.#pendingReplies.push({ ready, send: () => reply({ ok: true, value: undefined }) });
        this.#sendReadyReplies();
      }
    } catch (thrown) {
      reply({
        ok: false,
        error: asDemandPagingError(thrown, 'KERNEL', `the command ${command.command} failed`).toPlain(),
      });
    }
  }

  /**
   * When a command of which no row is pending is done. While a discard is in progress, accesses can find its
   * pages as they were: poison, freeze and write protection hold once it has ended.
   */
  #readyOf(command: Command): () => boolean {
    if (this.#discards.none() || !NEEDS_PAGES_GONE.has(command.command) || !('ranges' in command))
      return () => true;
    const ends = command.ranges.map((pages) => this.#discards.endOf(pages));
    return () => this.#ended || ends.every((over) => over());
  }

  #carryOut(command: Exclude<Command, { command: 'ensure' | 'prefetch' }>): void {
    match(command)
      .with({ command: 'mark-present' }, ({ ranges }) => ranges.forEach((pages) => this.#markPresent(pages)))
      .with({ command: 'discard-begin' }, ({ ranges, then }) =>
        ranges.forEach((pages) => this.#discardBegin(pages, then)),
      )
      .with({ command: 'discard-end' }, ({ ranges }) => this.#discardEnd(ranges))
      .with({ command: 'freeze' }, ({ ranges }) => this.#protection.freeze(ranges))
      .with({ command: 'thaw' }, ({ ranges }) => ranges.forEach((pages) => this.#thaw(pages)))
      .with({ command: 'poison' }, ({ ranges }) => this.#poisonRanges(ranges))
      .with({ command: 'write-protect' }, ({ ranges }) => this.#protection.writeProtect(ranges, true))
      .with({ command: 'write-unprotect' }, ({ ranges }) => this.#protection.writeProtect(ranges, false))
      .with({ command: 'add-regions' }, ({ regions, token, states }) =>
        this.#addRegions(regions, token, states),
      )
      .with({ command: 'remove-regions' }, ({ ranges, missing }) =>
        ranges.forEach((pages) => this.#removeRegion(pages, missing)),
      )
      .with({ command: 'thread' }, ({ thread, class: accessClass, vcpu }) =>
        this.#faultStatistics.name(thread, accessClass, vcpu),
      )
      .with({ command: 'listen' }, ({ faults, installs }) => {
        this.#faultStatistics.reports = faults;
        this.#accounting.reportsInstalls = installs;
      })
      .with({ command: 'stop' }, ({ error }) => this.#stop(DemandPagingError.fromPlain(error)))
      .with({ command: 'end' }, ({ missing }) => this.#end(missing))
      .exhaustive();
  }

  /**
   * Stops the resolver for good and reports `stopped`. Every waiting access is let go if the port can do it.
   * Memory that is changing is waited for, until `deadline_ms` on the resolver's clock: then it throws
   * KERNEL. After an `end` that was carried out it does nothing.
   */
  abort(thrown: unknown, deadline_ms = Infinity): void {
    if (this.#ended) return;
    this.#deadline_ms = deadline_ms;
    this.#discards.clear(); // their ends are not heard any more
    this.#stop(asDemandPagingError(thrown, 'HANDLER_DIED', 'the resolver failed'));
    // No resolver is left to lift a protection for an access that waits on a protected page.
    for (const pages of this.#own) this.#protection.lift(pages);
    // A page of the page cache that no access has mapped yet is present, and its first access a minor fault.
    if (this.#o.supports.faults.includes('minor'))
      for (const own of this.#own)
        eachPresent(this.#o.layout, this.#o.states, own, (pages) => this.#installer.map(pages));
    this.#settleAll();
    this.#settleOutside();
    this.#o.settled?.();
  }

  /**
   * Continues from the states of another resolver of these pages that ended in the middle of its work. Faults
   * that it had taken and not served come again: every accessor that waits is woken.
   */
  goOn(): void {
    this.#settleAll();
  }

  // ── taking ──

  #take(wait: Wait): number {
    this.#batch.clear();
    // A look at the clock costs as much as a system call: not where nothing can be due.
    const timeout_ms =
      wait === 'none'
        ? 0
        : this.#fetching.inFlight.expects
          ? Math.max(0, this.nextDue_ms - this.#now())
          : Infinity;
    this.#takes++;
    this.#o.taking?.(true);
    const taken = this.#o.port.take(this.#batch, wait, timeout_ms);
    if (taken > 0) {
      this.#decode(taken);
      this.#applyEvents();
    }
    this.#takes--;
    this.#toldOfTaking();
    return taken;
  }

  #toldOfTaking(): void {
    this.#o.taking?.(this.#takes > 0 || this.#outside.waiting);
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
      if (this.#batch.isOutside(row)) {
        this.#outside.met(this.#batch.outside(row));
        continue;
      }
      this.#faultStatistics.count(this.#batch, row);
      if (kind === ROW.missing || kind === ROW.minor)
        this.#enqueue(this.#batch.page[row]!, kind === ROW.minor, now);
      else (protectedPages ??= []).push({ page: this.#batch.page[row]!, kind });
    }
    for (const { page, kind } of protectedPages ?? []) this.#protection.met(page, kind);
  }

  /** An access that seemed to be outside is at a page: the move that brought it there has been read. */
  #inside({ kind }: OutsideFault, page: PageIndex): void {
    if (kind === 'missing' || kind === 'minor') this.#enqueue(page, kind === 'minor', this.#now());
    else this.#protection.met(page, ROW[kind]);
  }

  /**
   * Applies events in order. Called again while one is applied (by a flush that took more), it goes on with
   * the next oldest.
   */
  #applyEvents(): void {
    for (let event = this.#events.shift(); event; event = this.#events.shift()) this.#event(event);
  }

  /** Rows wait for events. */
  #memoryChanges(): void {
    if (this.#deadline_ms !== Infinity && this.#now() >= this.#deadline_ms)
      throw new DemandPagingError('KERNEL', 'the memory is being changed, and that does not end');
    this.#takeEvents();
  }

  /** Reads everything there is, for the sake of its events; faults are queued. */
  #takeEvents(): void {
    while (this.#take('none') === this.#batch.capacity);
  }

  #enqueue(page: PageIndex, cached: boolean, takenAt_ms: number): void {
    if (!this.#queue.push(page, cached, takenAt_ms)) this.#o.counters.add(COUNTER.joinedFaults);
  }

  #event(event: MemoryEvent): void {
    match(event)
      .with({ kind: 'remove' }, ({ pages }) => this.#removed(pages))
      .with({ kind: 'unmap' }, ({ pages }) => this.#unmapped(pages))
      .with({ kind: 'remap' }, ({ pages, to }) => {
        this.#o.states.set('unmapped', pages, false);
        this.#unmappedPages.back(pages);
        this.#o.notify({ kind: 'remapped', pages, to });
      })
      .with({ kind: 'fork' }, ({ fd }) =>
        this.#o.notify({
          kind: 'forked',
          fd,
          states: this.#o.states.snapshot(pagesOf(this.#o.layout.regions)),
        }),
      )
      .exhaustive();
  }

  /** The pages' contents are discarded. What is in flight for them must not be installed. */
  #removed(pages: PageRange): void {
    for (const part of this.#discards.announce(pages)) this.#discarded(part, 'zero');
  }

  /**
   * Cancels whatever is to be installed in these pages. Accesses that wait for it are woken, and fault again.
   * `keepsPoison`: pending rows that poison them stay.
   */
  #cancel(pages: PageRange, keepsPoison = false): void {
    this.#installer.reconsider(pages, keepsPoison);
    for (const request of this.#fetching.inFlight.cancel(pages)) {
      request.job?.cancelled(request.pages, without(request.pages, pages));
      this.#installer.wake(request.pages);
    }
    this.#jobs.rewind();
  }

  #discarded(pages: PageRange, then: AfterDiscard): void {
    this.#unmappedPages.back(pages);
    for (const page of this.#recheck) if (within(page, pages)) this.#recheck.delete(page);
    this.#accounting.discarded(pages, then);
    this.#cancel(pages);
    if (then === 'zero') this.#o.notify({ kind: 'removed', pages });
  }

  // ── serving ──

  #serve(): void {
    const queue = this.#queue;
    while (queue.length > 0) {
      if (!this.#stopped && this.#fetching.inFlight.roomFor('demand') === 0) {
        return this.#o.counters.add(COUNTER.deferredFetches);
      }
      const { page, cached, takenAt_ms } = queue;
      queue.shift();
      this.#servePage(page, cached, takenAt_ms);
    }
  }

  #servePage(page: PageIndex, cached: boolean, takenAt_ms: number): void {
    const { states, counters, supports } = this.#o;
    if (this.#installable.isHeld(page)) return counters.add(COUNTER.heldFaults);
    // Runs for every fault: a plain switch, an order of magnitude faster than an object match.
    switch (states.stateOf(page)) {
      case 'poisoned':
        return this.#installer.poison({ first: page, count: 1 });
      case 'present':
        return this.#spurious(page, cached);
      case 'unmapped':
        if (this.#o.layout.isRemoved(page)) return; // the accesses that waited there have been let go
        if (!this.#unmappedPages.mayBeBack(page)) return this.#unanswerable(page);
        states.set('unmapped', { first: page, count: 1 }, false); // it may be mapped again
        return this.#servePage(page, cached, takenAt_ms);
      case 'removed':
        if (cached) return this.#installer.cached(page); // discarded from the mapping, kept in the page cache
        return this.#installer.zero({ first: page, count: 1 });
      case 'missing':
        if (this.#stopped) return; // cannot be poisoned, and must not be served
        if (this.#fetching.inFlight.find(page)) return counters.add(COUNTER.joinedFaults);
        if (cached && !supports.fill) return this.#installer.cached(page); // its owner fills it
        return this.#fetching.demand(page, cached, takenAt_ms);
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
    // Of a file, poison cannot tell a swapped-out page from a lost one. The fault for a swapped-out page is a
    // late one, and does not repeat; the fault for a lost page does.
    if (hasPageCache(this.#o.layout.regionOf(page).memory) && !this.#recheck.delete(page)) {
      this.#recheck.add(page);
      return this.#installer.wake(pages);
    }
    // Swapped out, or gone? Poison tells, and reads the events if the memory is changing.
    if (supports.verbs.includes('poison')) return this.#installer.probe(page);
    if (supports.residency) this.#takeEvents(); // its removal may be waiting to be read
    if (supports.residency && states.isPresent(page) && !port.resident(page))
      return this.#vanished(pages, false);
    this.#installer.wake(pages); // it faults again if the page has gone meanwhile
  }

  /** A present page is physically gone, and no event said so. `poisoned`: by what found it out. */
  #vanished(pages: PageRange, poisoned: boolean): void {
    const { supports, layout } = this.#o;
    this.#accounting.vanished(pages);
    if (poisoned) this.#poisoned(pages);
    const { start, length } = layout.gpaRangeOf(pages);
    this.#giveUp(
      pages,
      new DemandPagingError('PAGE_VANISHED', 'a present page was discarded past the pager', {
        range: { start, length },
        hint: "Punch holes and discard memory only through the pager's discard()",
      }),
    );
    if (!poisoned && supports.verbs.includes('poison')) this.#installer.poison(pages); // in any policy
  }

  // ── outcomes ──

  #poisoned(pages: PageRange): void {
    this.#jobs.rejectCovering(pages, 'PAGE_POISONED', 'the page was poisoned');
    this.#accounting.poisoned(pages);
  }

  /** These pages are unavailable. Accesses that wait for them must fail; none gets zeros. */
  #giveUp(pages: PageRange, error: DemandPagingError): void {
    this.#o.notify({ kind: 'source-failed', pages, error: error.toPlain() });
    match(this.#o.policy.onSourceFailure)
      .with('stop', () => this.#stop(error))
      .with('poison', () => this.#installer.poison(pages))
      .with('fail', () => this.#installer.fail(pages))
      .exhaustive();
    this.#jobs.rejectCovering(pages, 'PAGE_FAILED', 'the page was unavailable', error);
  }

  #gone(pages: PageRange, errno: number): void {
    if (errno === ESRCH)
      return this.#stop(
        new DemandPagingError('MEMORY_GONE', 'the process whose memory is served has ended', { errno }),
      );
    this.#unmapped(pages);
  }

  /**
   * These pages have no memory any more. Accesses that still wait for them are woken, fault again, and fail
   * then.
   */
  #unmapped(pages: PageRange): void {
    this.#accounting.unmapped(pages);
    this.#cancel(pages);
    this.#installer.wake(pages);
    this.#jobs.rejectCovering(pages, 'MEMORY_GONE', 'the page is no longer mapped');
    this.#o.notify({ kind: 'unmapped', pages });
  }

  /**
   * Woken again and again, an access asks for a page that has no memory. It is failed; or, where the backend
   * cannot fail it, it stays blocked and the pager stops, because an endless wait must be reported.
   */
  #unanswerable(page: PageIndex): void {
    const pages = { first: page, count: 1 };
    const { start, length } = this.#o.layout.gpaRangeOf(pages);
    const error = new DemandPagingError('MEMORY_GONE', 'an access asks for a page that is no longer mapped', {
      range: { start, length },
      hint: "Stop the thread that accesses it, or map memory there again and discard the pages with then: 'refetch'",
    });
    if (!this.#o.supports.verbs.includes('fail')) return this.#stop(error, 'blocked');
    this.#o.notify({ kind: 'source-failed', pages, error: error.toPlain() });
    this.#installer.fail(pages);
  }

  #stop(error: DemandPagingError, left?: 'blocked'): void {
    if (this.#stopped || this.#ended) return;
    this.#stopped = error;
    this.#fetching.end();
    const poison = this.#o.supports.verbs.includes('poison') && error.errno !== ESRCH;
    this.#jobs.rejectAll('STOPPED', 'the pager has stopped', error);
    const waiters = left ?? (poison ? 'poisoned' : 'blocked');
    // Reported before the poison is visible, so that a SIGBUS handler finds the reason.
    this.#o.notify({ kind: 'stopped', error: error.toPlain(), waiters });
    if (!poison) return;
    for (const pages of this.#own) {
      this.#poisonAgain(pages);
      this.#poisonMissing(pages);
    }
  }

  // ── commands ──

  #markPresent(pages: PageRange): void {
    this.#accounting.markPresent(pages);
    this.#unmappedPages.back(pages);
    this.#cancel(pages);
    this.#installer.wake(pages);
  }

  #discardBegin({ first, count, announcements }: DiscardRange, then: AfterDiscard): void {
    const pages = { first, count };
    this.#discards.begin(pages, announcements);
    this.#discarded(pages, then);
  }

  #discardEnd(ranges: readonly PageRange[]): void {
    for (const pages of ranges) {
      this.#discards.end(pages);
      this.#poisonAgain(pages); // before accessors are woken: what was poisoned meanwhile went with the pages
      this.#rejudge(pages);
    }
  }

  /**
   * Wakes the accesses that were held in these pages, so that they fault anew, and lets waiting jobs look
   * again.
   */
  #rejudge(pages: PageRange): void {
    this.#installer.wake(pages);
    this.#jobs.rewind();
  }

  #thaw(pages: PageRange): void {
    this.#protection.thaw(pages);
    this.#rejudge(pages);
  }

  /** The port comes first: what it refuses has changed nothing. */
  #addRegions(regions: readonly Region[], token: unknown, states: PageStatesSnapshot): void {
    const { layout, port } = this.#o;
    if (!port.addRegions) throw new DemandPagingError('NOT_SUPPORTED', 'this port takes no further regions');
    port.addRegions(token);
    layout.add(regions);
    this.#own.push(...pagesOf(regions));
    this.#o.states.restore(states, regions[0]!.firstPage);
    for (const pages of pagesOf(regions)) this.#accounting.added(pages);
  }

  /**
   * Stops serving a region. First its missing pages get what the command says, so that every access that
   * waits there ends, and only then is the region unregistered. A fetch that arrives for it, and a fault that
   * comes after, are ignored: its pages are unmapped, and their numbers are not used again.
   */
  #removeRegion(pages: PageRange, missing: MissingAtClose): void {
    const { layout, port } = this.#o;
    this.#cancel(pages);
    this.#seeToMissing(pages, missing);
    if (this.#o.states.any('frozen', pages)) this.#protection.thaw(pages);
    this.#installer.wake(pages);
    this.#jobs.rejectCovering(pages, 'MEMORY_GONE', 'the region was removed');
    // Ends, because each flush reads the events that rows wait for.
    while (this.#installer.pending) this.#installer.flush();
    port.removeRegion?.(pages);
    this.#unmappedPages.back(pages);
    for (const page of this.#recheck) if (within(page, pages)) this.#recheck.delete(page);
    this.#accounting.removed(pages);
    layout.remove([{ firstPage: pages.first }]);
    this.#own.splice(0, this.#own.length, ...this.#own.flatMap((own) => without(own, pages)));
  }

  /** What becomes of missing pages when the resolver stops serving them. */
  #seeToMissing(pages: PageRange, missing: MissingAtClose): void {
    const { layout, states } = this.#o;
    if (missing === 'poison' && !this.#stopped) this.#poisonMissing(pages);
    if (missing === 'zero') eachMissing(layout, states, pages, (run) => this.#installer.zero(run));
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
    eachMissing(this.#o.layout, this.#o.states, pages, (missing) => {
      for (const { held, ...run } of this.#discards.partsOf(missing))
        if (held)
          this.#poisoned(run); // it would go with the pages: it comes when they have gone
        else this.#installer.poison(run);
    });
  }

  /**
   * Poison that was installed between a removal's event and the unmapping of its pages has gone with them,
   * though the states still have it. While the resolver serves, the next fault restores it; before it stops,
   * or wakes accessors, this does.
   */
  #poisonAgain(pages: PageRange): void {
    eachPoisoned(this.#o.layout, this.#o.states, pages, (poisoned) => this.#installer.poison(poisoned));
  }

  /**
   * Wakes every waiter, and leaves no row pending. Ends, because each flush reads the events that rows wait
   * for.
   */
  #settleAll(): void {
    for (const own of this.#own)
      for (const pages of perRegion(this.#o.layout, own)) this.#installer.wake(pages);
    while (this.#installer.pending) this.#installer.flush();
  }

  /**
   * Answers accesses outside the layout that wait by now: nothing else would end their wait. Ends, because
   * each round reads the events that an answer waits for. A port that fails can answer none.
   */
  #settleOutside(): void {
    try {
      do {
        this.#takeEvents();
        this.#outside.answer(this.#stopped !== undefined);
      } while (this.#outside.waiting);
    } catch {
      // what the port has to say was said before, or is not heard any more
    }
  }

  /** Sends the replies of commands whose rows have all been carried out. */
  #sendReadyReplies(): void {
    if (this.#pendingReplies.length === 0 || this.#installer.pending) return;
    const pendingReplies = this.#pendingReplies;
    this.#pendingReplies = pendingReplies.filter(({ ready }) => !ready());
    for (const each of pendingReplies) if (!this.#pendingReplies.includes(each)) each.send();
  }

  #end(missing: MissingAtClose): void {
    this.#fetching.end();
    this.#queue.clear();
    this.#jobs.rejectAll('CLOSED', 'the pager was closed');
    for (const pages of this.#own) {
      if (missing !== 'leave' && !this.#stopped) this.#poisonAgain(pages);
      this.#seeToMissing(pages, missing);
    }
    // No resolver is left to thaw a page for an access that waits on it, and its contents are there.
    for (const pages of this.#own) if (this.#o.states.any('frozen', pages)) this.#protection.thaw(pages);
    this.#settleAll();
    if (missing !== 'leave' || this.#outside.waiting) this.#settleOutside();
    this.#ended = true;
    this.#o.settled?.(); // before anything else can run, or fail
    this.#o.port.close();
  }
}
