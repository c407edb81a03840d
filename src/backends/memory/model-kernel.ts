import {
  type AccessSite,
  type FaultKind,
  type Gpa,
  hex,
  type KernelEvent,
  type MemoryEvent,
  type PageIndex,
  type PageRange,
} from '../../api/index.js';
import { ERRNO } from './errno.js';
import { type ModelMechanism, type PageRequest } from './mechanism.js';
import {
  forkSteps,
  discardSteps,
  MemoryChange,
  remapSteps,
  unmapSteps,
  discardEverywhereSteps,
  type Step,
} from './memory-change.js';
import { MessageQueue } from './message-queue.js';
import { type AccessRequest, ModelAccess } from './model-access.js';
import { type Discard, type ModelMemory } from './model-memory.js';
import { settle, type Stepper } from './stepper.js';

const KERNEL = { kind: 'kernel' } as const;

/** Which mechanisms stand before which sites. A site that is absent is unmediated. */
export type SiteMechanisms = Partial<Readonly<Record<AccessSite, readonly ModelMechanism[]>>>;

/** What {@link ModelKernel.run} does: an access from any site, by page or by guest-physical address. */
export type RunRequest = Omit<AccessRequest, 'piece_bytes' | 'page' | 'offset'> &
  ({ readonly page: PageIndex; readonly offset?: number } | { readonly gpa: Gpa });

/**
 * A small deterministic kernel: memory, a userfaultfd-like queue, mechanisms before the access sites,
 * and the threads that access and change the memory as {@link Stepper}s that an outside scheduler steps.
 *
 * It runs anywhere and touches nothing native. Where it and a real kernel differ, it is wrong.
 */
export class ModelKernel {
  readonly memory: ModelMemory;
  readonly queue = new MessageQueue();
  readonly sites: SiteMechanisms;
  /** The kernels of forked children, by the number that their `fork` event carried. */
  readonly children = new Map<number, ModelKernel>();
  /** Told of each event, for traces. */
  trace: ((event: KernelEvent) => void) | undefined;
  /**
   * Called wherever a real kernel could be preempted by another thread: before each message is read, each
   * page resolved. A scheduler steps others from here. `stuck`: the caller is about to be told EAGAIN, and a
   * caller that insists would spin for ever if nobody else went on.
   * Default: when stuck, every change of memory under way goes a step on.
   */
  preempt: (stuck: boolean) => void = (stuck) => {
    if (stuck) for (const change of [...this.#changes]) change.step();
  };
  readonly #events: readonly MemoryEvent['kind'][];
  readonly #mechanisms: readonly ModelMechanism[];
  readonly #changes = new Set<MemoryChange>();
  #changing = 0;
  /** Who stopped an access last. */
  readonly #stoppers = new WeakMap<ModelAccess, ModelMechanism>();
  #released = false;
  #orphaned = false;
  #gone = false;
  #threads = 0;
  #forks = 0;

  /** `events`: which events are sent. A change whose event is not goes unannounced. */
  constructor(memory: ModelMemory, sites: SiteMechanisms, events: readonly MemoryEvent['kind'][]) {
    this.memory = memory;
    this.sites = sites;
    this.#events = events;
    this.#mechanisms = [...new Set(Object.values(sites).flat())];
  }

  /** Whether a resolver that sleeps would be woken. */
  get hasWork(): boolean {
    return this.queue.hasWork;
  }

  /** Whether a change is under way whose event was not read yet: every verb but `wake` is told EAGAIN. */
  get isChanging(): boolean {
    return this.#changing > 0;
  }

  /** Whether the process whose memory it is has ended. */
  get isGone(): boolean {
    return this.#gone;
  }

  /** Whether the userfaultfd was closed: nothing is mediated any more. */
  get isReleased(): boolean {
    return this.#released;
  }

  // ── who accesses and changes the memory ──

  /** A new access, to be stepped. Throws RangeError for what is outside the layout or writes nothing. */
  access(request: AccessRequest): ModelAccess {
    const { page, offset = 0, length = 8, bytes } = request;
    const { layout } = this.memory;
    const total = bytes?.length ?? length;
    const region = layout.regionOf(page);
    const room = (region.firstPage + region.pageCount - page) * region.pageSize - offset;
    if (!(offset >= 0 && offset < region.pageSize && total > 0 && total <= room)) {
      throw new RangeError(`an access of ${total} bytes at offset ${offset} of page ${page}`);
    }
    return new ModelAccess(this, ++this.#threads, request);
  }

  /**
   * An access that runs by itself: for use without a scheduler. Resolves when it has ended, however; a
   * missing page keeps it open until it was resolved. Throws RangeError for what is outside the layout.
   */
  async run(request: RunRequest): Promise<ModelAccess> {
    const access = this.access('gpa' in request ? { ...request, ...this.#placeOf(request.gpa) } : request);
    await settle(access);
    return access;
  }

  /** A thread that drops pages, announcing it first; `punch` (fallocate on the file) announces nothing. */
  discard(pages: PageRange, how: Discard = 'dontneed'): Stepper {
    return this.#change(discardSteps(this, pages, how));
  }

  /** A thread that drops pages as a backend does: poison goes with them. */
  discardEverywhere(pages: PageRange): Stepper {
    return this.#change(discardEverywhereSteps(this, pages));
  }

  /** A thread that unmaps pages and announces it after. */
  unmap(pages: PageRange): Stepper {
    return this.#change(unmapSteps(this, pages));
  }

  /** A thread that moves pages to another host address and announces it after. */
  remap(pages: PageRange, to: number): Stepper {
    return this.#change(remapSteps(this, pages, to));
  }

  /** A thread that forks: the child's kernel is in {@link children} under the event's number. */
  fork(): Stepper {
    const fd = ++this.#forks;
    return this.#change(forkSteps(this, fd));
  }

  /** An event of a kind that no version of the library knows is waiting to be read. */
  sendUnknown(number: number): void {
    this.queue.addEvent(number);
  }

  /** The process ends: its accesses are no more, and every verb is told ESRCH. */
  end(): void {
    this.#gone = true;
    this.queue.fail({ first: 0, count: this.memory.layout.pageCount }, ERRNO.ESRCH);
    this.queue.close();
  }

  /**
   * The handler has died and its descriptor with it, while the VM goes on. Whoever waits looks again; a
   * mechanism whose state KVM keeps ({@link ModelMechanism.outlivesHandler}) still stands, the others are
   * gone.
   */
  orphan(): void {
    this.#orphaned = true;
    this.trace?.({ actor: KERNEL, kind: 'descriptor-closed' });
    this.queue.close();
    this.queue.wake({ first: 0, count: this.memory.layout.pageCount });
  }

  /** The descriptor is closed. Whoever waits goes on, unserved: a missing page reads as zeros from now on. */
  release(): void {
    if (this.#released) return;
    this.#released = true;
    this.queue.close();
    this.queue.wake({ first: 0, count: this.memory.layout.pageCount });
  }

  // ── for mechanisms ──

  /** The access waits, and a fault is delivered. `attributed`: with its site and vCPU. */
  deliver(access: ModelAccess, kind: FaultKind, { attributed = false } = {}): void {
    access.block(kind);
    this.queue.addFault(access, attributed);
  }

  // ── for accesses ──

  /** The frame that an access reaches, a positive errno, or undefined where it was stopped. */
  reach(access: ModelAccess): Uint8Array | number | undefined {
    const { page, site } = access;
    if (this.#gone) return ERRNO.ESRCH;
    if (!this.#released) {
      for (const mechanism of this.sites[site] ?? []) {
        if (this.#orphaned && !mechanism.outlivesHandler) continue;
        const obstacle = mechanism.obstacle(access, this);
        if (typeof obstacle === 'number') return obstacle;
        if (obstacle === undefined) continue;
        this.trace?.({ actor: access.actor, kind: 'stopped-at', fault: obstacle, page });
        this.#stoppers.set(access, mechanism);
        mechanism.stop(access, obstacle, this);
        return undefined;
      }
    }
    return site === 'external-mapping' ? this.memory.reachSecond(page) : this.memory.reach(page);
  }

  /** The next step of an access whose vCPU has exited, made by its exit handler. */
  reenter(access: ModelAccess): void {
    const mechanism = this.#stoppers.get(access);
    // What barred it may be over by now, and whoever ended that has woken nobody: it was not waiting yet.
    const barred = !this.#released && mechanism?.obstacle(access, this) === access.kind;
    if (!barred) return access.enterAgain();
    if (mechanism?.reenter) mechanism.reenter(access, this);
    else this.deliver(access, access.kind!, { attributed: true });
  }

  forget(access: ModelAccess): void {
    this.queue.forget(access);
  }

  // ── for the port ──

  /** Carries out one page of a resolution: 0 or a positive errno. */
  resolvePage(request: PageRequest): number {
    if (this.#gone) return ERRNO.ESRCH;
    if (this.isChanging) return ERRNO.EAGAIN;
    for (const mechanism of this.#mechanisms) {
      const answer = mechanism.carryOut?.(request, this);
      if (answer !== undefined) return answer;
    }
    const errno = this.#carryOut(request);
    if (errno === 0) this.#arrived(request);
    return errno;
  }

  #carryOut({ verb, page, bytes, protect }: PageRequest): number {
    const { memory } = this;
    // Per-page decoding: a plain switch, as in the engine.
    switch (verb) {
      case 'copy':
        return memory.install(page, bytes!, protect);
      case 'zeropage':
        return memory.zero(page);
      case 'move':
        return memory.move(page, bytes!);
      case 'continue':
        return memory.continue(page, protect);
      case 'poison':
        return memory.poison(page);
      case 'writeprotect':
      case 'rwprotect':
        return memory.protect(page, verb, protect);
      case 'wake':
      case 'fail':
        return 0;
    }
  }

  #arrived({ verb, page }: PageRequest): void {
    this.trace?.({ actor: KERNEL, kind: 'carried-out', verb, page });
    if (verb !== 'copy' && verb !== 'zeropage' && verb !== 'move' && verb !== 'continue') return;
    for (const mechanism of this.#mechanisms) mechanism.installed?.(page, this);
  }

  // ── for changes ──

  /** Marks the memory as changing until {@link settled}. False where this event is not sent. */
  announces(kind: MemoryEvent['kind']): boolean {
    return !this.#released && this.#events.includes(kind);
  }

  begin(): void {
    this.#changing++;
  }

  settled(): void {
    this.#changing--;
  }

  dropPage(page: PageIndex, how: Discard): void {
    this.memory.drop(page, how);
    this.trace?.({ actor: KERNEL, kind: 'discarded', page });
    for (const mechanism of this.#mechanisms) mechanism.discarded?.(page, this);
  }

  unmapPage(page: PageIndex): void {
    this.memory.unmap(page);
    this.trace?.({ actor: KERNEL, kind: 'unmapped', page });
    for (const mechanism of this.#mechanisms) mechanism.discarded?.(page, this);
  }

  forkTo(fd: number): void {
    this.children.set(fd, new ModelKernel(this.memory.clone(), this.sites, this.#events));
  }

  #placeOf(address: Gpa): { readonly page: PageIndex; readonly offset: number } {
    const { layout } = this.memory;
    const page = layout.pageAt(address);
    if (page === undefined) throw new RangeError(`${hex(address)} is outside every region`);
    return { page, offset: Number(address - layout.gpaOf(page)) };
  }

  #change(steps: Generator<Step, void>): MemoryChange {
    const change = new MemoryChange(steps, () => this.#changes.delete(change));
    this.#changes.add(change);
    return change;
  }
}
