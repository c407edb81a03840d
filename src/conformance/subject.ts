import {
  type Accessor,
  type AccessSite,
  type Attachment,
  type Backend,
  type KernelEvent,
  type MemoryKind,
  type PageIndex,
  type PageRange,
  type Resolver,
  type ResolverOptions,
} from '../api/index.js';

/** Something a schedule steps. Structurally what the kernel model's accesses and changes of memory are. */
export interface Stepped {
  readonly runnable: boolean;
  readonly ended: boolean;
  step(): void;
}

/** A stepped access. `state` is one of the ends once `ended`. */
export interface SteppedAccess extends Stepped {
  readonly actor: Accessor;
  readonly state: string;
  readonly errno: number | undefined;
  /** How often its vCPU has left the kernel with it. */
  readonly exits: number;
  /** What was read, or is written. */
  readonly bytes: Uint8Array;
  /** Ends it, unserved, as a fatal signal would. */
  kill(): void;
}

export interface SteppedAccessRequest {
  readonly site: AccessSite;
  readonly page: PageIndex;
  readonly offset?: number;
  readonly length?: number;
  readonly bytes?: Uint8Array;
  readonly piece_bytes?: number;
}

/** The seam by which the suite owns every interleaving of a deterministic kernel. */
export interface Stepping {
  /** Whether a resolver that sleeps would be woken. */
  readonly hasWork: boolean;
  access(request: SteppedAccessRequest): SteppedAccess;
  /** A thread that drops pages behind the pager's back (MADV_DONTNEED on anonymous memory). */
  discard(pages: PageRange, how?: 'dontneed' | 'remove'): Stepped;
  /** A thread that drops pages as the attachment does, which its promises cannot step by step. */
  discardEverywhere(pages: PageRange): Stepped;
  unmap(pages: PageRange): Stepped;
  /** An event that no version of the library knows waits to be read. */
  sendUnknown(number: number): void;
  /** Called by the kernel wherever another thread could run. `stuck`: another thread must, or the caller spins. */
  preempt: (stuck: boolean) => void;
  trace: ((event: KernelEvent) => void) | undefined;
  /** Lets every waiter look again: the suite's own remedy, to tell one fault from another. */
  readonly queue: { wake(pages: PageRange): void };
}

/** What came of an access of a real thread or vCPU: bytes read, or a positive errno; or the guest saw an abort. */
export type RealResult =
  | { readonly ok: true; readonly bytes: Uint8Array }
  | { readonly ok: false; readonly errno: number; readonly injected?: boolean };

/** A real thread or process that accesses memory from one site, one access after the other. */
export interface RealAccessor {
  access(request: {
    readonly page: PageIndex;
    readonly offset?: number;
    readonly length?: number;
    readonly bytes?: Uint8Array;
  }): Promise<RealResult>;
  /** Discards pages of the memory (MADV_DONTNEED), behind the pager's back; absent where it cannot. */
  discard?(pages: PageRange): Promise<void>;
  /** Ends it; kills it where it is a process that waits. */
  stop(): Promise<void>;
}

/** What is common to everything that can be tested. */
interface SubjectBase {
  readonly name: string;
  backend(): Backend;
  /** What its memory is made of. Default `anonymous`. */
  readonly memory?: MemoryKind;
  /** Default 4096. */
  readonly page_bytes?: number;
  /** Sites that can be exercised here. */
  readonly sites: readonly AccessSite[];
  /** Those of the sites that can be made to read only, though elsewhere they write, too. Default: none. */
  readonly readOnly?: readonly AccessSite[];
}

/** The engine, as the suite drives it. */
export type Engine = Pick<Resolver, 'turn' | 'execute' | 'abort' | 'busy' | 'ended' | 'nextDue_ms'>;

/** A backend on a deterministic kernel: every interleaving is chosen by the suite. */
export interface SteppedSubject extends SubjectBase {
  readonly deterministic: true;
  /** The seam of what the last `attach` made. */
  stepping(attachment: Attachment): Stepping;
  /** The engine under test. Default: the library's. */
  engine?(options: ResolverOptions): Engine;
}

/** A backend on a real kernel, accessed by real threads. */
export interface RealSubject extends SubjectBase {
  readonly deterministic: false;
  /** `around` is put about what talks to the kernel itself, beneath whatever else the backend is made of. Default: nothing. */
  backend(around?: (kernel: Backend) => Backend): Backend;
  /**
   * Starts an accessor of mapped memory. It is used again for a later attachment whose memory is mapped at
   * the same addresses.
   */
  accessor(site: AccessSite, attachment: Attachment): Promise<RealAccessor>;
  /** The site whose accessor can drop pages; absent where none can. */
  readonly discardSite?: AccessSite;
  /** Sites where an access that fails says so; elsewhere it ends the process. */
  readonly mayFail: readonly AccessSite[];
  /** Sites whose accessor is a process that can be killed while it waits. */
  readonly killable: readonly AccessSite[];
}

/** What the suite tests: a backend, the ways to reach its memory, and how its schedule is had. */
export type Subject = SteppedSubject | RealSubject;
