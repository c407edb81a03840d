import { EventEmitter } from 'node:events';
import { createHistogram } from 'node:perf_hooks';
import { threadId } from 'node:worker_threads';
import { match } from 'ts-pattern';
import { abandonChild } from './abandoned-child.js';
import { type GpaRange, type PageRange, hex, hva } from './address.js';
import { ACCESS_CLASSES, type AccessClass, type Coverage, coverageGaps, effectAt } from './access.js';
import { type Attachment, type Backend, type Shard } from './backend.js';
import { type Supports, missingVerbs } from './capability.js';
import { AFTER_DISCARD, type AfterDiscard, type DiscardOptions } from './discards.js';
import { CrashCleanup } from './crash-cleanup.js';
import { DemandPagingError, asDemandPagingError } from './error.js';
import { type PagerEmitter, type PagerEvents } from './events.js';
import { type OutsideFault } from './fault.js';
import { GuestMemory } from './guest-memory.js';
import { type Hold, Holds } from './holds.js';
import { KeepAlive } from './keep-alive.js';
import { Opening } from './opening.js';
import { eventLoopTurn } from './event-loop-turns.js';
import { MemoryLayout, pagesOf, type RegionSpec } from './layout.js';
import {
  type Command,
  type MissingAtClose,
  type ResolverEvent,
  type OutsideAnswer,
  type PrefetchResult,
} from './resolver-protocol.js';
import { intersection, without } from './page-range.js';
import { eachPresent } from './page-runs.js';
import { PageStates, type PageStatesSnapshot } from './page-states.js';
import {
  type AnnouncedPager,
  announcePager,
  type PagerOfThread,
  threadOfKernel,
} from './pagers-of-threads.js';
import { type PagerPolicy, completePolicy } from './policy.js';
import { whenProcessEnds } from './process-end.js';
import { startEmbedded } from './embedded-host.js';
import { type HostOptions, type ResolverHost, checkSourceReach } from './resolver-host.js';
import { startWorker } from './worker-host.js';
import { type SourceRef, checkCovers, isPortSource } from './source.js';
import { COUNTERS, type Statistics, summarise } from './statistics.js';

export interface PagerOptions {
  readonly backend: Backend;
  readonly regions: readonly RegionSpec[];
  readonly source: SourceRef;
  /**
   * The access classes whose accesses must be served: the pager refuses to start while an access of one of
   * their sites would neither wait for its page nor exit, but fail, or read what is there. Default:
   * `['vmm']`.
   */
  readonly needs?: readonly AccessClass[];
  readonly policy?: Partial<PagerPolicy>;
  /**
   * Aborts the opening: `openPager` rejects with its reason, and nothing is left behind. No effect once it
   * has resolved.
   */
  readonly signal?: AbortSignal;
  /**
   * What becomes of memory that is not the backend's own (an adopted userfaultfd, a region with an `hva`)
   * when opening fails after the backend has attached to it, and accesses may wait there. `poison` (the
   * default): they fail, as do later ones. `hand-back`: everything is as it was before; an adopted
   * userfaultfd stays open and is the caller's again, whose accesses wait until it is opened anew, and memory
   * with an `hva` is unregistered, so that it reads as zeros. Where the kernel has no poison, an adopted
   * userfaultfd is handed back.
   */
  readonly onOpenFailure?: 'poison' | 'hand-back';
  /**
   * The states of the pages when the pager opens. After another pager of the same memory: its {@link
   * Pager.snapshot}. For a forked child: what the `forked` event brought. Otherwise: which pages were
   * installed already in another way. Default: every page is missing.
   */
  readonly states?: PageStatesSnapshot;
}

export interface CloseOptions {
  /**
   * What becomes of pages still missing. `populate`: they are all fetched first. `poison` (the default where
   * the backend can): later accesses fail loudly. `zero`: they read as zeros. `leave`: nothing is done;
   * waiting accesses are not served, which with userfaultfd lets them read zeros once it is closed: only for
   * memory that is unmapped as well, or that another process goes on serving.
   */
  readonly missing?: Exclude<MissingAtClose, 'revoke'> | 'populate';
}

export interface AddRegionsOptions {
  /** As {@link PagerOptions.states}, of the pages of these regions, by address. */
  readonly states?: PageStatesSnapshot;
}

/**
 * Opens a pager: binds the backend to the regions, starts a resolver for each of its shards, and resolves
 * when missing pages are being served. The resolvers run where the backend's ports open: on threads of their
 * own for real backends.
 *
 * Blocks: no accessor but those of missing pages. Waits for the source to open, for the policy's
 * `openTimeout_ms` at most.
 *
 * Errors, after which nothing is left behind (see {@link PagerOptions.onOpenFailure}):
 * - what the backend's `attach` throws;
 * - the first unmet requirement's code (NO_DEVICE, NO_PERMISSION, NATIVE_UNAVAILABLE), naming each with its
 *   remedy;
 * - NOT_EMPTY where the memory has pages of which neither `states` nor the region's `contents` say anything,
 *   PAGE_VANISHED where it lacks one that `states` say is present;
 * - COVERAGE_GAP naming the sites that `needs` leaves open;
 * - NOT_SUPPORTED where the policy needs a verb the backend lacks, or the source's options cannot be cloned;
 * - BAD_RANGE where a region reaches past the source;
 * - SOURCE_FAILED, SOURCE_TIMEOUT; the reason of `signal`.
 */
export async function openPager(options: PagerOptions): Promise<Pager> {
  const policy = completePolicy(options.policy);
  const { onOpenFailure = 'poison', signal } = options;
  if (!OPEN_FAILURE_CHOICES.includes(onOpenFailure))
    throw new RangeError(`onOpenFailure is '${onOpenFailure}'; it takes ${OPEN_FAILURE_CHOICES.join(', ')}`);
  signal?.throwIfAborted();
  const layout = new MemoryLayout(options.regions);
  checkRequirements(options.backend, layout);
  const states = PageStates.create(layout.pageCount);
  if (options.states) states.restore(options.states);
  const alive = new KeepAlive();
  try {
    return await attached(options, layout, states, policy, alive);
  } catch (error) {
    alive.end();
    throw error;
  }
}

async function attached(
  options: PagerOptions,
  layout: MemoryLayout,
  states: PageStates,
  policy: PagerPolicy,
  alive: KeepAlive,
): Promise<Pager> {
  const attachment = await options.backend.attach(layout, states);
  const pager = new Pager(options, attachment, states, policy, alive);
  const opening = new Opening(policy.openTimeout_ms, options.signal);
  try {
    checkFit(options, attachment, policy);
    await pager.start(opening.signal);
    return pager;
  } catch (error) {
    await pager.giveUp(error);
    throw error;
  } finally {
    opening.end();
  }
}

function checkRequirements(backend: Backend, layout: MemoryLayout): void {
  const kinds = [...new Set(layout.regions.map(({ memory }) => memory))];
  const lacking = backend.probe(kinds).list.filter(({ met }) => !met);
  if (lacking.length === 0) return;
  const [{ code = 'NO_DEVICE', syscall, errno }] = lacking as [(typeof lacking)[0]];
  const reasons = lacking.map((each) => `${each.what}: ${each.found}`);
  throw new DemandPagingError(code, `${backend.name} cannot be used here. ${reasons.join('; ')}`, {
    syscall,
    errno,
    hint: lacking.map((each) => each.remedy).join('; '),
  });
}

function checkFit(
  { needs = ['vmm'], source, backend }: PagerOptions,
  { coverage, supports, shards }: Attachment,
  policy: PagerPolicy,
): void {
  const unknown = needs.filter((need) => !ACCESS_CLASSES.includes(need));
  if (unknown.length > 0)
    throw new RangeError(
      `needs names ${unknown.join(', ')}; the access classes are ${ACCESS_CLASSES.join(', ')}`,
    );
  const gaps = coverageGaps(coverage, needs);
  if (gaps.length > 0) {
    const sites = gaps.map((site) => `${site} (${effectAt(coverage, site)})`);
    throw new DemandPagingError(
      'COVERAGE_GAP',
      `${backend.name} does not serve accesses of ${sites.join(', ')}`,
      {
        hint: 'Compose it with a backend that covers them, or take the class out of `needs`',
      },
    );
  }
  const needed = policy.onSourceFailure === 'stop' ? [] : ([policy.onSourceFailure] as const);
  const lacking = missingVerbs(supports, needed);
  const possible = ['stop', ...(['poison', 'fail'] as const).filter((verb) => supports.verbs.includes(verb))];
  if (lacking.length > 0) {
    throw new DemandPagingError(
      'NOT_SUPPORTED',
      `${backend.name} cannot ${lacking.join(', ')}, which onSourceFailure asks for`,
      { hint: `Choose ${possible.map((choice) => `'${choice}'`).join(' or ')}` },
    );
  }
  if (supports.events.includes('fork') && policy.onFork === 'poison' && !supports.verbs.includes('poison')) {
    throw new DemandPagingError('NOT_SUPPORTED', `${backend.name} reports forks and cannot poison`, {
      hint: "Take each child's descriptor over (onFork: 'hand-over')",
    });
  }
  checkSourceReach(source, shards);
}

/** Shards meet where page states can be shared without two writers to a block (see {@link PageStates}). */
const SHARD_ALIGNMENT_PAGES = 4096;

/** Opened in this isolate. */
let pagers = 0;

const OPEN_FAILURE_CHOICES: readonly string[] = ['poison', 'hand-back'];
const CLOSE_CHOICES: readonly string[] = ['populate', 'poison', 'zero', 'leave'];

/**
 * Serves the missing pages of memory until it is closed. Made by {@link openPager}; used on the thread that
 * opened it.
 */
export class Pager implements AsyncDisposable {
  readonly layout: MemoryLayout;
  readonly coverage: Coverage;
  readonly supports: Supports;
  /** Shared page states: for looking only. */
  readonly states: PageStates;
  /** Undefined for memory of another address space. */
  readonly memory: GuestMemory | undefined;
  readonly #options: PagerOptions;
  readonly #attachment: Attachment;
  readonly #policy: PagerPolicy;
  readonly #emitter = new EventEmitter() as unknown as PagerEmitter;
  readonly #latency = createHistogram();
  readonly #holds = new Holds();
  #hosts: ResolverHost[] = [];
  #stopped: DemandPagingError | undefined;
  #closing: Promise<void> | undefined;
  /** Aborted when closing begins. */
  #ending = new AbortController();
  /**
   * Discards, freezes and changes of regions in progress: while there is one, the resolver must go on reading
   * events.
   */
  readonly #changes = new Map<
    Promise<void>,
    { readonly what: 'discard' | 'freeze' | 'regions'; readonly pages: readonly PageRange[] }
  >();
  /** Discards that were begun and not ended. */
  #discards = 0;
  /** Of these, those for which the attachment is discarding pages now. */
  #discarding = 0;
  /** Settles when what waits at discarded pages has been let go, where a resolver has died meanwhile. */
  #lettingGo: Promise<unknown> = Promise.resolve();
  /** Settles when the last change of regions is over: one at a time. */
  #regionChange: Promise<unknown> = Promise.resolve();

  readonly #alive: KeepAlive;
  readonly #shards: readonly Shard[];
  readonly #cleanups: ReadonlyMap<Shard, CrashCleanup>;
  readonly #id = `${threadId} ${pagers++}`;
  readonly #announced: AnnouncedPager;
  /** Ends the watch over the process's end. */
  readonly #closedInTime: () => void;

  /** @internal */
  constructor(
    options: PagerOptions,
    attachment: Attachment,
    states: PageStates,
    policy: PagerPolicy,
    alive: KeepAlive,
  ) {
    this.#options = options;
    this.#attachment = attachment;
    this.#policy = policy;
    this.#alive = alive;
    this.layout = attachment.layout;
    this.coverage = attachment.coverage;
    this.supports = attachment.supports;
    this.states = states;
    this.memory = attachment.memory && this.#guestMemory(attachment);
    this.#shards = attachment.shards;
    const { layout, supports } = this;
    this.#cleanups = new Map(
      this.#shards.map((shard) => [shard, new CrashCleanup({ layout, states, shard, supports, policy })]),
    );
    const ends = whenProcessEnds({ cleanUp: () => this.#processEnds() });
    this.#announced = announcePager(() => this.#announcement());
    this.#closedInTime = () => {
      ends();
      this.#announced.closed();
    };
  }

  /** @internal Starts the resolvers. */
  async start(signal: AbortSignal): Promise<void> {
    const { source } = this.#options;
    for (const pages of this.#allPages())
      eachPresent(this.layout, this.states, pages, (run) => this.#attachment.markPresent?.(run));
    const starts = await Promise.allSettled(
      this.#shards.map((shard) =>
        (shard.port.where === 'here' ? startEmbedded : startWorker)(this.#hostOptions(shard, source), signal),
      ),
    );
    this.#hosts = starts.flatMap((start) => (start.status === 'fulfilled' ? [start.value] : []));
    for (const start of starts) if (start.status === 'rejected') throw start.reason;
    signal.throwIfAborted();
    void this.#attachment.failure?.then((error) => this.#attachmentFailed(error));
  }

  /** @internal Ends what an opening that failed has begun. */
  async giveUp(error: unknown): Promise<void> {
    const { onOpenFailure = 'poison', regions } = this.#options;
    const isOurs = this.memory !== undefined && regions.every(({ hva }) => hva === undefined);
    const canPoison = this.supports.verbs.includes('poison');
    const poison = onOpenFailure === 'poison' && canPoison && !isOurs;
    let unsettled = await this.#endHosts(poison ? 'poison' : 'leave');
    try {
      // Where no resolver was started, or one failed to start, its part is done from here.
      if (poison)
        for (const [{ port }, cleanup] of this.#cleanups)
          if (port.where === 'worker' && !cleanup.done) cleanup.abort(asOpenFailure(error));
    } catch (thrown) {
      unsettled = asDemandPagingError(thrown, 'HANDLER_DIED', 'what waits could not be let go');
    }
    if (!isOurs && (!poison || unsettled)) this.#attachment.handBack?.();
    if (unsettled)
      process.emitWarning(`a pager that did not open: ${unsettled.message}`, { code: unsettled.code });
    this.#closedInTime();
    await this.#attachment.close();
  }

  /** Installed pages would not become visible: the accesses that wait must fail instead. */
  #attachmentFailed(error: DemandPagingError): void {
    // A resolver that has died has reported it.
    for (const host of this.#hosts) host.send({ command: 'stop', error: error.toPlain() }).catch(() => {});
  }

  // ── events ──

  on<E extends keyof PagerEvents>(event: E, listener: PagerEvents[E]): this {
    this.#emitter.on(event, listener);
    this.#listen();
    return this;
  }

  once<E extends keyof PagerEvents>(event: E, listener: PagerEvents[E]): this {
    this.#emitter.once(event, listener);
    this.#listen();
    return this;
  }

  off<E extends keyof PagerEvents>(event: E, listener: PagerEvents[E]): this {
    this.#emitter.off(event, listener);
    this.#listen();
    return this;
  }

  // ── pages ──

  /**
   * Brings pages now, as if they were accessed, and resolves when all are present. Removed pages come as
   * zeros; a frozen one is waited for until it is thawed. Errors: PAGE_POISONED, PAGE_FAILED, STOPPED,
   * CLOSED.
   */
  async ensure(ranges: readonly GpaRange[]): Promise<void> {
    await this.#ensurePages(this.#pages(ranges));
  }

  /**
   * Brings pages in the order given, a chunk at a time, whenever no access waits. Never brings contents to a
   * page that was removed. Resolves when every page was looked at.
   */
  async prefetch(ranges: readonly GpaRange[] = this.#everything()): Promise<PrefetchResult> {
    const results = (await this.#sendEach(this.#pages(ranges), (own) => ({
      command: 'prefetch',
      ranges: own,
    }))) as PrefetchResult[];
    return results.reduce(
      (sum, one) => ({
        installedPages: sum.installedPages + one.installedPages,
        skippedPages: sum.skippedPages + one.skippedPages,
      }),
      {
        installedPages: 0,
        skippedPages: 0,
      },
    );
  }

  /**
   * {@link ensure}s pages and holds them: until released, the pager refuses to discard, freeze or poison them
   * (PAGE_HELD).
   */
  async hold(ranges: readonly GpaRange[]): Promise<Hold> {
    const pages = this.#pages(ranges);
    const hold = this.#holds.hold(pages); // before they are brought: nothing may take them in between
    try {
      await this.#ensurePages(pages);
      return hold;
    } catch (error) {
      hold.release();
      throw error;
    }
  }

  /**
   * Says that the contents of whole pages are there already, brought by another way (a second mapping, RDMA).
   */
  async markPresent(ranges: readonly GpaRange[]): Promise<void> {
    const pages = this.#wholePages(ranges);
    if (this.#closing) throw new DemandPagingError('CLOSED', 'the pager was closed');
    for (const run of pages) this.#attachment.markPresent?.(run);
    await this.#sendEach(pages, (own) => ({ command: 'mark-present', ranges: own }));
  }

  /**
   * Discards the contents of whole pages; `then` says what the next access finds. Resolves when they are
   * gone. Accesses to the pages wait meanwhile. On KVM backends it waits until every vCPU is outside KVM_RUN.
   * Errors: PAGE_HELD; NOT_SUPPORTED (see {@link Supports.discard}); CLOSED; STOPPED; RangeError for another
   * `then`.
   */
  async discard(ranges: readonly GpaRange[], { then }: DiscardOptions): Promise<void> {
    if (!AFTER_DISCARD.includes(then))
      throw new RangeError(`discard() takes then: ${AFTER_DISCARD.join(', ')}, not '${String(then)}'`);
    const pages = this.#wholePages(ranges);
    this.#holds.check(pages, 'discard');
    if (!this.supports.discard)
      throw new DemandPagingError('NOT_SUPPORTED', `${this.#options.backend.name} cannot discard pages`);
    if (this.#closing) throw new DemandPagingError('CLOSED', 'the pager was closed');
    await this.#change('discard', pages, () => this.#discardPages(pages, then));
  }

  /**
   * Stops every access to the pages without losing their contents, until {@link thaw}. On KVM backends an
   * access of KVM's own that waits for a frozen page delays changes of memslots, and with them other discards
   * and freezes. Errors: PAGE_HELD; NOT_SUPPORTED (see {@link Supports.freeze}).
   */
  async freeze(ranges: readonly GpaRange[]): Promise<void> {
    const pages = this.#wholePages(ranges);
    this.#holds.check(pages, 'freeze');
    await this.#change('freeze', pages, async () => {
      await this.#sendEach(pages, (own) => ({ command: 'freeze', ranges: own }));
      for (const range of pages) await this.#attachment.freeze?.(range);
    });
  }

  /** Lets accesses to the pages go on. What is being frozen when this is called does not stay so. */
  async thaw(ranges: readonly GpaRange[]): Promise<void> {
    const pages = this.#wholePages(ranges);
    const before = new Set(this.#freezes());
    // Thaws again whenever a freeze has ended: a freeze takes effect late, and the next one may wait for an
    // access inside the kernel that waits for a page of this one.
    for (;;) {
      await this.#sendEvenClosing(pages, (own) => ({ command: 'thaw', ranges: own }));
      const left = this.#freezes().filter((freeze) => before.has(freeze));
      if (left.length === 0) return;
      await Promise.race(left.map((freeze) => freeze.catch(() => {})));
    }
  }

  #freezes(): readonly Promise<void>[] {
    return [...this.#changes].flatMap(([change, { what }]) => (what === 'freeze' ? [change] : []));
  }

  async #change(
    what: 'discard' | 'freeze',
    pages: readonly PageRange[],
    body: () => Promise<void>,
  ): Promise<void> {
    await this.#tracked(this.#alive.during(this.#quiesced(body)), what, pages);
  }

  async #tracked(
    change: Promise<void>,
    what: 'discard' | 'freeze' | 'regions',
    pages: readonly PageRange[],
  ): Promise<void> {
    this.#changes.set(change, { what, pages });
    await change.finally(() => this.#changes.delete(change));
  }

  // ── regions ──

  /**
   * Serves further regions from now on: memory that was plugged in, that another process has registered, that
   * has grown. They must not overlap those of the layout, nor reach past the source. Without an `hva` they
   * are mapped here, where the memory is local; their pages are numbered after all others. Precondition: no
   * thread accesses memory with an `hva` before this resolves; such an access is outside the layout (see
   * {@link PagerPolicy.onOutsideFault}).
   *
   * Blocks: as {@link openPager}. Errors: NOT_SUPPORTED (see {@link Supports.changeRegions}; a kind of memory
   * that the pager was not opened with), BAD_RANGE (also where an access was answered before), BAD_ALIGNMENT,
   * ALREADY_REGISTERED, NOT_EMPTY, PAGE_VANISHED, NO_HUGE_PAGES, STOPPED, CLOSED, KERNEL; then none of them
   * is served, and nothing is left behind.
   */
  addRegions(regions: readonly RegionSpec[], options: AddRegionsOptions = {}): Promise<void> {
    return this.#changeRegions([], () => this.#addRegions(regions, options));
  }

  /**
   * Stops serving whole regions. Their missing pages get what {@link CloseOptions.missing} says, so that
   * every access that waits there ends. Memory that was mapped here is unmapped; other memory stays mapped
   * and is unregistered. From the call on they are no part of the layout: requests for them in flight reject
   * with MEMORY_GONE.
   *
   * Precondition: as {@link close}, for these regions. Errors, with nothing changed: BAD_RANGE for ranges
   * that are not whole regions, PAGE_HELD, NOT_SUPPORTED, CLOSED. HANDLER_DIED where the resolver ends before
   * it has finished.
   */
  removeRegions(ranges: readonly GpaRange[], { missing = 'poison' }: CloseOptions = {}): Promise<void> {
    if (!CLOSE_CHOICES.includes(missing)) throw badChoice('removeRegions', missing);
    return this.#changeRegions(ranges, () => this.#removeRegions(ranges, missing));
  }

  async #changeRegions(ranges: readonly GpaRange[], body: () => Promise<void>): Promise<void> {
    if (!this.supports.changeRegions || !this.#attachment.addRegions) {
      throw new DemandPagingError(
        'NOT_SUPPORTED',
        `${this.#options.backend.name} cannot change its regions`,
        {
          hint: 'Close the pager and open one with the other regions',
        },
      );
    }
    if (this.#closing) throw new DemandPagingError('CLOSED', 'the pager was closed');
    const pages = this.#pages(ranges);
    const turn = this.#regionChange.then(() => {
      if (this.#ending.signal.aborted) throw new DemandPagingError('CLOSED', 'the pager was closed');
      return body();
    });
    this.#regionChange = turn.catch(() => {});
    await this.#tracked(this.#alive.during(turn), 'regions', pages);
    this.#announced.again();
  }

  async #addRegions(specs: readonly RegionSpec[], { states: said }: AddRegionsOptions): Promise<void> {
    if (this.#stopped)
      throw new DemandPagingError('STOPPED', 'the pager has stopped', { cause: this.#stopped });
    const alignment = this.#hosts.length > 1 ? SHARD_ALIGNMENT_PAGES : 1;
    const planned = this.layout.plan(specs, alignment);
    for (const { sourceLength } of this.#hosts) checkCovers(sourceLength, planned);
    const first = planned[0]!.firstPage;
    const end = planned.at(-1)!.firstPage + planned.at(-1)!.pageCount;
    // Only the resolver writes states once it runs: it gets these by command.
    const states = PageStates.create(end);
    if (said) states.restore(said, first);
    this.states.grow(end);
    const { regions, shard, token } = this.#attachment.addRegions!(planned, states);
    const host = this.#hosts[shard]!;
    const own = pagesOf(regions);
    // Before the resolver knows: should it die over it, what cleans up after it must know them.
    this.layout.add(regions);
    host.pages.push(...own);
    try {
      const added = states.snapshot([{ first, count: end - first }]);
      await host.send({ command: 'add-regions', regions, token, states: added });
    } catch (error) {
      this.layout.remove(regions);
      host.pages.splice(host.pages.length - own.length, own.length);
      this.#attachment.removeRegions!(regions);
      throw error;
    }
  }

  async #removeRegions(
    ranges: readonly GpaRange[],
    missing: NonNullable<CloseOptions['missing']>,
  ): Promise<void> {
    const regions = this.layout.regionsOf(ranges);
    const pages = pagesOf(regions);
    this.#holds.check(pages, 'remove the region of');
    if (missing === 'populate') await this.#ensurePages(pages);
    else if (missing === 'poison') this.#checkPoison(pages);
    this.layout.remove(regions); // no request is made for them any more
    const under = [...this.#changes].filter(
      ([, change]) => change.what !== 'regions' && meet(change.pages, pages),
    );
    await Promise.allSettled(under.map(([change]) => change));
    const command = missing === 'populate' ? 'leave' : missing;
    try {
      await this.#sendEvenClosing(pages, (own) => ({
        command: 'remove-regions',
        ranges: own,
        missing: command,
      }));
    } finally {
      for (const host of this.#hosts)
        host.pages.splice(0, host.pages.length, ...host.pages.flatMap((own) => outside(own, pages)));
      this.#attachment.removeRegions!(regions);
    }
  }

  #checkPoison(pages: readonly PageRange[]): void {
    const complete = pages.every((each) => this.states.allPresent(each));
    if (complete || this.supports.verbs.includes('poison')) return;
    throw new DemandPagingError('NOT_SUPPORTED', 'pages are missing and this backend cannot poison them', {
      hint: "Choose missing: 'populate', 'zero' or 'leave'",
    });
  }

  /**
   * Runs `body` with the accessors paused that a discard or a freeze would wait for; see {@link
   * Attachment.quiesce}.
   */
  async #quiesced<T>(body: () => Promise<T>): Promise<T> {
    if (this.#stopped)
      throw new DemandPagingError('STOPPED', 'the pager has stopped', { cause: this.#stopped });
    return this.#attachment.quiesce ? this.#attachment.quiesce(body, this.#ending.signal) : body();
  }

  /**
   * Makes every later access to missing pages fail loudly. NOT_SUPPORTED where the backend lacks `poison`.
   */
  async poison(ranges: readonly GpaRange[]): Promise<void> {
    const pages = this.#wholePages(ranges);
    this.#holds.check(pages, 'poison');
    await this.#sendEach(pages, (own) => ({ command: 'poison', ranges: own }));
  }

  /** Reports the next write to each page in a `written` event; pages that come later come protected. */
  async writeProtect(ranges: readonly GpaRange[], on = true): Promise<void> {
    await this.#sendEach(this.#wholePages(ranges), (own) => ({
      command: on ? 'write-protect' : 'write-unprotect',
      ranges: own,
    }));
  }

  /** Sets the access class of a kernel thread, for the statistics and `fault` events. */
  async nameThread(thread: number, accessClass: AccessClass, vcpu?: number): Promise<void> {
    if (this.#closing) throw new DemandPagingError('CLOSED', 'the pager was closed');
    const command: Command = {
      command: 'thread',
      thread,
      class: accessClass,
      ...(vcpu === undefined ? {} : { vcpu }),
    };
    await this.#alive.during(Promise.all(this.#hosts.map((host) => host.send(command))));
  }

  statistics(): Statistics {
    const sums = Object.fromEntries(
      COUNTERS.map((name) => [name, this.#hosts.reduce((sum, { counters }) => sum + counters.get(name), 0)]),
    );
    const all = this.#allPages();
    return {
      ...(sums as Record<(typeof COUNTERS)[number], number>),
      pages: all.reduce((sum, { count }) => sum + count, 0),
      presentPages: all.reduce((sum, pages) => sum + this.states.countPresent(pages), 0),
      latency: summarise(this.#latency),
    };
  }

  /**
   * The states of the pages, for another pager of the same memory ({@link PagerOptions.states}), region by
   * region by address. Exact once this pager has closed; before, a page that is removed meanwhile may read
   * present. Blocks: never.
   */
  snapshot(): PageStatesSnapshot {
    return this.states.snapshot(this.#allPages());
  }

  /** Every page is present. */
  get complete(): boolean {
    return this.#allPages().every((pages) => this.states.allPresent(pages));
  }

  /** Why the pager stopped serving, if it did. */
  get stopped(): DemandPagingError | undefined {
    return this.#stopped;
  }

  // ── end ──

  /**
   * Lets the event loop of this thread run empty, and the process end, though the pager is open; {@link ref}
   * undoes it. While a call of the pager is awaited the loop goes on. By default an open pager keeps the
   * process alive: when the process ends, its memory is served no longer.
   */
  unref(): this {
    this.#alive.wanted = false;
    return this;
  }

  /** Undoes {@link unref}. */
  ref(): this {
    this.#alive.wanted = true;
    return this;
  }

  /** What the main thread needs to know of a pager of a worker thread. */
  #announcement(): PagerOfThread {
    const { layout, supports } = this;
    return {
      id: this.#id,
      thread: threadOfKernel(),
      layout: layout.shape,
      states: this.states.shared,
      supports,
      policy: this.#policy,
      shards: [...this.#cleanups].flatMap(([{ port }, { words, pages }]) =>
        port.where === 'worker' ? [{ pages: [...pages], place: port, words }] : [],
      ),
      isOwnMemory: this.memory !== undefined,
    };
  }

  /**
   * The process, or this worker thread, ends with the pager open: accesses that wait fail, and never read
   * zeros.
   */
  #processEnds(): void {
    const error = new DemandPagingError('CLOSED', 'the process ends, and the pager was not closed');
    for (const [shard, cleanup] of this.#cleanups)
      if (shard.port.where === 'worker') cleanup.atProcessEnd(error);
    for (const host of this.#hosts) host.abandon?.(error);
  }

  /**
   * Ends paging. Idempotent. When it resolves, no access waits, and no thread, descriptor or mapping of the
   * pager is left.
   *
   * Precondition: where the backend has mapped the memory, no thread of this process is inside a load or
   * store of its own there, not even one that waits: a thread that is woken may not have run before the
   * memory is unmapped, and then the process ends (SIGSEGV).
   *
   * Errors: NOT_SUPPORTED, with nothing changed, where pages are missing that the backend cannot poison and
   * no other choice was made. HANDLER_DIED where a resolver's thread has ended and the control thread could
   * not let the waiting accesses go in its place: then they wait, and the remaining choice is to close with
   * `missing: 'leave'`.
   */
  close(options: CloseOptions = {}): Promise<void> {
    this.#closing ??= this.#alive.during(this.#close(options)).catch((error: unknown) => {
      this.#closing = undefined;
      this.#ending = new AbortController();
      throw error;
    });
    return this.#closing;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  async #close({ missing = 'poison' }: CloseOptions): Promise<void> {
    if (!CLOSE_CHOICES.includes(missing)) throw badChoice('close', missing);
    // A change that has not begun may wait for a page that is frozen, or that does not come: close() must not
    // wait for it.
    this.#ending.abort(new DemandPagingError('CLOSED', 'the pager was closed'));
    // A discard ends only while the resolver reads its event, and `complete` is not valid before it has.
    await Promise.allSettled(this.#changes.keys());
    if (missing === 'populate') await this.#populate();
    const complete = this.complete;
    const revoke = missing === 'poison' && !complete ? this.#attachment.revoke : undefined;
    if (missing === 'poison' && !revoke) this.#checkPoison(this.#allPages());
    const end = missing === 'populate' || complete ? 'leave' : revoke ? 'revoke' : missing;
    if (end === 'leave') this.#closedInTime(); // there is nothing to do, or nothing is to be done
    const unsettled = await this.#endHosts(end);
    if (unsettled && end !== 'leave') throw unsettled;
    // Until it has gone, what waits is let go by the end of the process, should that come first.
    if (revoke) for (const cleanup of this.#cleanups.values()) cleanup.isDue();
    this.memory?.close(); // before it goes
    await revoke?.();
    await this.#attachment.close();
    this.#closedInTime();
    this.#alive.end();
    this.#emitter.emit('closed');
    this.#emitter.removeAllListeners();
  }

  async #populate(): Promise<void> {
    for (const range of this.#allPages()) {
      const missing = this.states.nextMissing(range.first, range.first + range.count);
      if (missing < range.first + range.count && this.states.any('frozen', range)) {
        throw new DemandPagingError('PAGE_FROZEN', 'pages to populate are frozen', {
          hint: 'Thaw them before closing',
        });
      }
    }
    await this.#sendEvenClosing(this.#allPages(), (own) => ({ command: 'ensure', ranges: own }));
  }

  /**
   * Why accesses may still wait, if a resolver that ended without carrying out its `end` command has left
   * some.
   */
  async #endHosts(missing: MissingAtClose): Promise<DemandPagingError | undefined> {
    const ends = this.#hosts.map((host) => {
      host.send({ command: 'end', missing }).catch(() => {}); // its end shows whether it was carried out
      return host.ended;
    });
    return (await Promise.all(ends)).find((unsettled) => unsettled !== undefined);
  }

  // ── inside ──

  #hostOptions(shard: Attachment['shards'][number], source: SourceRef): HostOptions {
    return {
      layout: this.layout,
      states: this.states,
      supports: this.supports,
      policy: this.#policy,
      latency: this.#latency,
      shard,
      source,
      cleanup: this.#cleanups.get(shard)!,
      notify: (event) => this.#event(event),
      died: (error, waiters) => this.#died(shard, error, waiters),
    };
  }

  #guestMemory({ memory, shards }: Attachment): GuestMemory {
    const { source } = this.#options;
    const embedded = shards.some(({ port }) => port.where === 'here') && 'the resolver runs on this thread';
    const serving = isPortSource(source) && source.servedHere && 'the source is served by this thread';
    return new GuestMemory({
      layout: this.layout,
      states: this.states,
      raw: memory!,
      ensure: (ranges) => this.#ensurePages(ranges),
      hint: (ranges) =>
        void this.#sendEach(ranges, (own) => ({ command: 'prefetch', ranges: own })).catch(() => {}),
      mustNotBlock: (pages) => embedded || serving || this.#keepsBack(pages),
    });
  }

  /** Why only this thread can end the wait of an access to one of these pages, if that is so. */
  #keepsBack(pages: readonly PageRange[]): string | undefined {
    if (pages.some((each) => this.states.any('frozen', each))) return 'only this thread can thaw it';
    const changing = [...this.#changes.values()].flatMap((change) => change.pages);
    return meet(changing, pages) ? 'this thread is taking it away' : undefined;
  }

  #event(event: ResolverEvent): void {
    const emit = this.#emitter.emit.bind(this.#emitter);
    match(event)
      .with({ kind: 'fault' }, ({ fault }) => emit('fault', fault))
      .with({ kind: 'installed' }, ({ pages, why }) => emit('installed', pages, why))
      .with({ kind: 'removed' }, { kind: 'written' }, { kind: 'poisoned' }, ({ kind, pages }) =>
        emit(kind, pages),
      )
      .with({ kind: 'unmapped' }, ({ pages }) => {
        this.#attachment.unmapped?.(pages);
        this.layout.move(pages, undefined);
        emit('unmapped', pages);
      })
      .with({ kind: 'remapped' }, ({ pages, to }) => {
        this.#attachment.moved(pages, to);
        this.layout.move(pages, hva(to));
        emit('remapped', pages, to);
      })
      .with({ kind: 'forked' }, ({ fd, states }) => {
        const wanted = this.#policy.onFork === 'hand-over' && this.#emitter.listenerCount('forked') > 0;
        if (wanted) emit('forked', fd, states);
        else abandonChild(this.#attachment, fd);
      })
      .with({ kind: 'outside-fault' }, ({ fault, answer }) => this.#outside(fault, answer))
      .with({ kind: 'retrying' }, ({ pages, attempt, error }) =>
        emit('retrying', pages, attempt, DemandPagingError.fromPlain(error)),
      )
      .with({ kind: 'source-failed' }, ({ pages, error }) =>
        emit('source-failed', pages, DemandPagingError.fromPlain(error)),
      )
      .with({ kind: 'complete' }, () => {
        if (this.complete) emit('complete'); // the other shards may not be
      })
      .with({ kind: 'stopped' }, ({ error, waiters }) =>
        this.#stop(DemandPagingError.fromPlain(error), waiters),
      )
      .exhaustive();
  }

  #outsideSaid = false;

  /**
   * Without a listener the first is reported by a warning, and later ones are not: a process may have many
   * such pages.
   */
  #outside(fault: OutsideFault, answer: OutsideAnswer): void {
    if (this.#emitter.emit('outside-fault', fault, answer) || this.#outsideSaid) return;
    this.#outsideSaid = true;
    process.emitWarning(
      `an access at ${hex(fault.address)}, outside the pager's layout, was answered: ${answer}. ` +
        "Later ones are reported to listeners of 'outside-fault' only; the policy's onOutsideFault sets the answer",
    );
  }

  #stop(error: DemandPagingError, waiters: 'poisoned' | 'blocked'): void {
    if (this.#stopped) return;
    this.#stopped = error;
    const heard = this.#emitter.emit('stopped', error, waiters);
    if (!heard && !this.#closing)
      process.emitWarning(`demand paging stopped: ${error.message}`, { code: error.code });
  }

  /** Tells the resolvers whether faults and installs are worth reporting. */
  #listen(): void {
    const command: Command = {
      command: 'listen',
      faults: this.#emitter.listenerCount('fault') > 0,
      installs: this.#emitter.listenerCount('installed') > 0,
    };
    for (const host of this.#hosts) host.send(command).catch(() => {}); // a dead resolver reports nothing
  }

  /**
   * Between begin and end the resolvers install nothing in these pages, so what is discarded stays discarded.
   */
  async #discardPages(pages: readonly PageRange[], then: AfterDiscard): Promise<void> {
    const announcements = (range: PageRange): number => this.#attachment.removeEventsPerDiscard?.(range) ?? 1;
    this.#discards++;
    try {
      await this.#sendEach(pages, (own) => ({
        command: 'discard-begin',
        ranges: own.map((range) => ({ ...range, announcements: announcements(range) })),
        then,
      }));
      try {
        for (const range of pages) await this.#discardRange(range);
      } finally {
        await this.#sendEvenClosing(pages, (own) => ({ command: 'discard-end', ranges: own }));
      }
    } finally {
      this.#discards--;
      await this.#lettingGo;
    }
  }

  async #discardRange(range: PageRange): Promise<void> {
    this.#discarding++;
    try {
      await this.#attachment.discard(range);
    } finally {
      this.#discarding--;
    }
  }

  #died(shard: Shard, error: DemandPagingError, waiters: 'poisoned' | 'blocked'): void {
    this.#stop(error, waiters);
    if (this.#discards > 0 && shard.port.where === 'worker')
      this.#lettingGo = Promise.all([
        this.#lettingGo,
        this.#letGoOfDiscarded(this.#cleanups.get(shard)!, error),
      ]);
  }

  /**
   * A resolver has died while pages are being discarded. The discard waits until its event was read, and no
   * other thread reads it; and the poison that the crash cleanup has put there may go with the pages. So the
   * cleanup is done again, until the pages have gone, and once after.
   */
  async #letGoOfDiscarded(cleanup: CrashCleanup, error: DemandPagingError): Promise<void> {
    try {
      do {
        await eventLoopTurn();
        cleanup.abort(error);
      } while (this.#discarding > 0);
    } catch {
      // no port can be opened: that accesses wait was said when the resolver died
    }
  }

  async #ensurePages(pages: readonly PageRange[]): Promise<void> {
    await this.#sendEach(pages, (own) => ({ command: 'ensure', ranges: own }));
  }

  /** Sends each resolver its share of the pages. Resolves with the answers of those that had one. */
  async #sendEach(
    pages: readonly PageRange[],
    command: (own: readonly PageRange[]) => Command,
  ): Promise<unknown[]> {
    if (this.#closing) throw new DemandPagingError('CLOSED', 'the pager was closed');
    return this.#sendEvenClosing(pages, command);
  }

  /** As {@link #sendEach}, for what ends something that closing waits for. */
  async #sendEvenClosing(
    pages: readonly PageRange[],
    command: (own: readonly PageRange[]) => Command,
  ): Promise<unknown[]> {
    const shares = this.#hosts.map((host) => ({
      host,
      own: pages.flatMap((range) => host.pages.flatMap((own) => intersection(range, own))),
    }));
    const sent = shares.filter(({ own }) => own.length > 0).map(({ host, own }) => host.send(command(own)));
    return this.#alive.during(Promise.all(sent));
  }

  #allPages(): readonly PageRange[] {
    return pagesOf(this.layout.regions);
  }

  #everything(): readonly GpaRange[] {
    return this.layout.regions.map((region) => ({ start: region.gpa, length: region.length }));
  }

  #pages(ranges: readonly GpaRange[]): readonly PageRange[] {
    return ranges.flatMap((range) => this.layout.pagesOf(range));
  }

  #wholePages(ranges: readonly GpaRange[]): readonly PageRange[] {
    return ranges.flatMap((range) => this.layout.wholePagesOf(range));
  }
}

const meet = (some: readonly PageRange[], others: readonly PageRange[]): boolean =>
  some.some((a) => others.some((b) => intersection(a, b).length > 0));

/** What of a range is in none of the others, each of which holds it whole, in part or not at all. */
const outside = (range: PageRange, others: readonly PageRange[]): readonly PageRange[] =>
  others.reduce<readonly PageRange[]>((left, other) => left.flatMap((one) => without(one, other)), [range]);

const badChoice = (method: string, given: string): RangeError =>
  new RangeError(`${method}() takes missing: ${CLOSE_CHOICES.join(', ')}, not '${given}'`);
const asOpenFailure = (error: unknown): DemandPagingError =>
  asDemandPagingError(error, 'STOPPED', 'the pager did not open');
