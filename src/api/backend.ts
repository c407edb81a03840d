import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { type Gpa, type PageIndex, type PageRange } from './address.js';
import { type Coverage } from './access.js';
import { type Requirements, type Supports } from './capability.js';
import { type DemandPagingError } from './error.js';
import { type FaultBatch, type OutsideFault } from './fault.js';
import { type MemoryKind, type MemoryLayout, type Region } from './layout.js';
import { type PageStates } from './page-states.js';
import { type Outcome, type ResolutionBatch } from './resolution.js';

/**
 * How {@link FaultPort.take} waits when nothing is there: `none` returns at once; `block` sleeps in the
 * kernel, perhaps after looking for a moment; `spin` polls without sleeping. All return early when the port
 * is kicked.
 */
export type Wait = 'none' | 'block' | 'spin';

/**
 * The resolver's end of a backend: faults and events out, resolutions in. Used by one thread only, the
 * resolver's, which must never touch the memory it serves and never changes memslots.
 */
export interface FaultPort {
  /**
   * Memory that `copy` rows read from, addressed by offset. At least one page of the largest page
   * size. Only the resolver's thread writes it.
   */
  readonly staging: Uint8Array;

  /**
   * Takes what has happened, in the kernel's order, appending to `batch` until it is full. Takes no more from
   * the kernel than fits: an event that was read is in the batch when `take` returns. Blocks according to
   * `wait`, for at most `timeout_ms` (may be Infinity); spurious returns of 0 are allowed. Throws
   * UNKNOWN_EVENT for an event of a kind this version does not know, MEMORY_GONE when the address space is
   * gone.
   */
  take(batch: FaultBatch, wait: Wait, timeout_ms: number): number;

  /**
   * Resolves when `take` would return something or the port was kicked, without blocking the thread;
   * used instead of a blocking `take` when the source is asynchronous. At most one call is outstanding.
   */
  ready(): Promise<void>;

  /**
   * Carries out every row in order and settles each with an outcome; never throws for what the kernel
   * answers and never blocks on an accessor. A verb that is not declared settles as `refused` and
   * changes nothing. `already-present` has woken the waiters of that page.
   */
  resolve(batch: ResolutionBatch): void;

  /**
   * The page at the address of a fault outside the layout, or -1. Asked again whenever events were read: an
   * access at the new address of moved memory may fault before the move is read. Absent where a port never
   * takes such a fault.
   */
  locate?(address: number): PageIndex;

  /**
   * Ends the wait of an access outside the layout. `zeros`: the page comes as if it were not registered.
   * `poison`: this access and later ones to the page fail. Either lifts a protection that the fault is about.
   * Never blocks, never throws for what the kernel answers. `installed`: the access goes on. `again`: events
   * are unread. `gone`: the process has ended. Anything else: the access still waits. Absent where a port
   * never takes such a fault.
   */
  answerOutside?(fault: OutsideFault, answer: 'zeros' | 'poison'): Outcome;

  /**
   * Registers regions that were added, by the token of {@link Attachment.addRegions}; from then on it takes
   * their faults. Errors: as `attach`; then nothing is registered. Only called where {@link
   * Supports.changeRegions} says so.
   */
  addRegions?(token: unknown): void;

  /**
   * Unregisters a region's pages. Precondition: no access waits there. No fault of theirs is taken any more.
   */
  removeRegion?(pages: PageRange): void;

  /** Whether a page is physically there; only called where {@link Supports.residency} says so. */
  resident(page: PageIndex): boolean;

  /** Gives up what the port itself holds. The attachment stays. Idempotent. */
  close(): void;
}

/**
 * Where a port can be opened. `here`: in the isolate that attached. `worker`: in any isolate of this
 * process, by importing `module` and calling its `export` with the cloneable `token`.
 */
export type PortPlace =
  | { readonly where: 'here'; open(): FaultPort }
  | { readonly where: 'worker'; readonly module: string; readonly export: string; readonly token: unknown };

/** What a `worker` place's export must be. */
export type OpenPort<Token> = (token: Token) => FaultPort;

type PortModule = Readonly<Record<string, OpenPort<unknown>>>;
type WorkerPlace = Extract<PortPlace, { readonly where: 'worker' }>;

/** Modules of ports that were imported in this isolate. */
const imported = new Map<string, PortModule>();

/** Imports a port's module in this isolate, so that {@link openPortNow} need not. */
export async function importPort({ module }: WorkerPlace): Promise<void> {
  imported.set(module, (await import(module)) as PortModule);
}

/** Opens a port in this isolate. Throws TypeError when its module has no such export. */
export async function openPort(place: PortPlace): Promise<FaultPort> {
  if (place.where === 'worker') await importPort(place);
  return openPortNow(place);
}

/**
 * As {@link openPort}, without waiting: where the process ends there is no time. A module that was not
 * imported before is required, which fails for one with a top-level await.
 */
export function openPortNow(place: PortPlace): FaultPort {
  if (place.where === 'here') return place.open();
  const found = imported.get(place.module) ?? requirePort(place);
  const open = found[place.export];
  if (typeof open !== 'function')
    throw new TypeError(`${place.module} exports no function '${place.export}'`);
  return open(place.token);
}

/** The module of a port, without waiting for it. */
export function requirePort({ module }: WorkerPlace): PortModule {
  const specifier = module.startsWith('file:') ? fileURLToPath(module) : module;
  return createRequire(import.meta.url)(specifier) as PortModule;
}

/** One resolver's share of the memory. Shards do not overlap and together cover the layout. */
export interface Shard {
  readonly pages: PageRange;
  readonly port: PortPlace;
  /**
   * Makes a waiting `take` or `ready` of this shard's port return. Callable from any thread that attached.
   */
  kick(): void;
}

/**
 * The bytes of local guest memory, without paging: accesses go straight to the mapping. The caller has
 * made sure the pages are present, or accepts that the access blocks or fails as the backend's coverage says.
 */
export interface RawMemory {
  /**
   * Copies out. Throws DemandPagingError (PAGE_POISONED, PAGE_MISSING) where the backend errors instead of
   * blocking.
   */
  load(address: Gpa, into: Uint8Array): void;
  store(address: Gpa, from: Uint8Array): void;
}

/** Regions whose memory is mapped and not registered yet. */
export interface AddedRegions {
  /** With their mapping filled in, if the memory is local. */
  readonly regions: readonly Region[];
  /** Index of the shard that is to serve them. */
  readonly shard: number;
  /** For {@link FaultPort.addRegions}; cloneable. */
  readonly token: unknown;
}

/** A backend bound to one layout. Made on the control thread: the one that opened the pager. */
export interface Attachment {
  /** The layout with every region's mapping filled in, if the memory is local. */
  readonly layout: MemoryLayout;
  readonly coverage: Coverage;
  readonly supports: Supports;
  readonly shards: readonly Shard[];
  /** Undefined for memory of another address space. */
  readonly memory: RawMemory | undefined;

  /**
   * Discards pages: the next access to one faults. They are unmapped when it returns, or when its promise
   * resolves. Control thread only. Blocks: may wait until the resolver has read the `remove` events. Errors:
   * NOT_SUPPORTED where {@link Supports.discard} is false.
   */
  discard(pages: PageRange): void | Promise<void>;

  /**
   * The contents of these pages, of one region, are in memory though no port installed them. Called before
   * the resolvers learn of it. Absent where that makes no difference to the attachment. Errors: KERNEL.
   */
  markPresent?(pages: PageRange): void;

  /**
   * How many `remove` events the port reads of each of these pages, of one region, when they are discarded.
   * Default 1; of no consequence where the port reads no such events. A page of which more are read was
   * removed by another thread, too, and reads as zeros.
   */
  removeEventsPerDiscard?(pages: PageRange): number;

  /**
   * Pauses the accessors that {@link discard} and {@link freeze} would have to pause, runs `body`, and
   * resumes them.
   *
   * An accessor must be able to leave a missing page in order to pause. So pages are kept from accessors, for
   * a discard or a freeze, only inside `body`: otherwise the pause would wait for an accessor, and that
   * accessor for one of these pages. One `body` at a time. The accessors are paused for all of it.
   *
   * Blocks: waits for every access that waits for a missing page when it is called, for as long as the source
   * takes. Errors: rejects as `body` does, or with the signal's reason if it is aborted before `body` has
   * begun.
   */
  quiesce?<T>(body: () => Promise<T>, signal: AbortSignal): Promise<T>;

  /**
   * Stops accesses that reach present pages without a fault, after the `rwprotect` rows for those pages have
   * been carried out: there where that takes more than a port may do. Resolves when no access gets through.
   */
  freeze?(pages: PageRange): Promise<void>;

  /**
   * Resolves when a thread that the attachment runs beside the resolvers has failed, so that installed pages
   * do not become visible to accessors. Never rejects.
   */
  readonly failure?: Promise<DemandPagingError> | undefined;

  /**
   * Revokes all of the memory, before {@link close}: an access that waits, and every later one, fails
   * (SIGBUS, SIGSEGV, EFAULT). So missing pages need no poison before. Present only where all of the memory
   * is the attachment's own. Precondition: the ports are closed. Errors: rejects with KERNEL; then accesses
   * wait.
   */
  readonly revoke?: (() => Promise<void>) | undefined;

  /** Tells the control side what the port saw happen to the mapping, so that {@link RawMemory} follows. */
  moved(pages: PageRange, to: number): void;

  /**
   * Tells the control side that pages are no longer mapped, so that closing does not touch what may be mapped
   * there now.
   */
  unmapped?(pages: PageRange): void;

  /**
   * Maps regions to be added that have no `hva`, and adopts the others. They are planned and not yet in
   * {@link layout}. `states`: of their pages, as with {@link Backend.attach}; no other thread has these yet.
   * One addition or removal at a time. Only called where {@link Supports.changeRegions} says so. Errors: as
   * {@link Backend.attach}; then nothing is left behind.
   */
  addRegions?(regions: readonly Region[], states?: PageStates): AddedRegions;

  /**
   * Gives back what {@link addRegions}, or attaching, took for these regions. Precondition: no port has them
   * registered.
   */
  removeRegions?(regions: readonly Region[]): void;

  /**
   * Poisons what is missing in a forked child's copy of the memory, and closes the child's descriptor. Where
   * it throws (NOT_SUPPORTED without `poison`, KERNEL), the descriptor is left open: closed, the child would
   * read zeros.
   */
  abandonChild(fd: number): void;

  /**
   * When {@link close} is called: leaves open what `attach` took over from its caller (an adopted
   * userfaultfd).
   */
  handBack?(): void;

  /**
   * Ends notification for the layout and gives back what `attach` took. The pager has seen to the
   * pages still missing and has closed the ports before. Idempotent; definite: when it resolves, no
   * thread, descriptor or mapping of the attachment is left.
   */
  close(): Promise<void>;
}

/**
 * A way to take faults for missing pages and to install them: the one contract that real backends, the
 * model's mechanisms and wrappers implement.
 */
export interface Backend {
  readonly name: string;
  /**
   * What this host lacks, and how to get it. Tries every system call that the backend will need, on memory of
   * these kinds where that makes a difference (default: what the backend is mostly used with). Never throws,
   * leaves nothing open. Blocks: for some milliseconds.
   */
  probe(memory?: readonly MemoryKind[]): Requirements;
  /**
   * Binds to memory: maps regions that have no `hva`, adopts those that do, and asks the kernel to report
   * missing pages from now on. Throws NO_DEVICE, NO_PERMISSION, ALREADY_REGISTERED, NO_HUGE_PAGES,
   * NOT_SUPPORTED, BAD_RANGE; then nothing is left behind.
   *
   * `states`: what the opener says of the pages; no resolver runs yet. What the memory has beyond that is
   * refused (NOT_EMPTY), discarded, or marked present there, as each region's `contents` say; what it should
   * have and has not is PAGE_VANISHED (see {@link settleContents}). Left out: every page is missing.
   */
  attach(layout: MemoryLayout, states?: PageStates): Promise<Attachment>;
}
