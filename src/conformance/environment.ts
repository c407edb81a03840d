import {
  type AccessSite,
  type Attachment,
  type FaultPort,
  type MemoryLayout,
  type ResolverEvent,
  type PageIndex,
  type PageRange,
  type PagerPolicy,
} from '../api/index.js';
import { type Contents } from './contents.js';
import {
  type AccessEnd,
  type AccessRef,
  type Awaited,
  type Failure,
  type Operation,
  type OperationRef,
} from './failure.js';
import { type ScriptedSource } from './scripted-source.js';
import { type TraceEvent } from './trace.js';

/** What a property's body waits for: it goes on at some moment when `until` holds. */
export interface Wait {
  /** What it is, for the failure if that never happens: tasks to end, or something else. */
  readonly for: readonly Task[] | Extract<Awaited, { what: unknown }>['what'];
  until(): boolean;
}

/** A property's body: it acts, and yields what it waits for. */
export type Body = Generator<Wait, void>;

/** Something under way. Moments are steps of a schedule or milliseconds. */
export interface Task<Ref = AccessRef | OperationRef> {
  readonly ref: Ref;
  readonly settled: boolean;
  /** Code of the error it failed with. */
  readonly error: string | undefined;
  readonly started: number;
  /** Infinity until settled. */
  readonly ended: number;
}

export interface TouchRequest {
  readonly site?: AccessSite;
  readonly page: PageIndex;
  /** Default 0. */
  readonly offset?: number;
  /** Bytes to read. Default 8. */
  readonly length?: number;
  /** What to write; absent for a read. */
  readonly bytes?: Uint8Array;
  /** In how many pieces it is made, where that can be chosen. Default 1: the access is atomic. */
  readonly pieces?: number;
}

/** An access under way. */
export interface Touch extends Task<AccessRef> {
  readonly site: AccessSite;
  readonly page: PageIndex;
  readonly offset: number;
  /** How it ended. */
  readonly end: AccessEnd | undefined;
  readonly errno: number | undefined;
  /** How often its vCPU has left the kernel with it; undefined where that cannot be seen. */
  readonly exits: number | undefined;
  /** What was read. */
  readonly bytes: Uint8Array;
  /** Ends it, unserved. */
  kill(): void;
}

/** A pager at work on the environment. */
export interface Paging {
  readonly policy: PagerPolicy;
  do(operation: Operation, pages: PageRange): Task<OperationRef>;
  /** Ends paging; what is missing is poisoned where the backend can, else left. */
  close(): Task<OperationRef>;
  isPresent(page: PageIndex): boolean;
  /** What the pager said unasked, in order. */
  readonly events: readonly ResolverEvent[];
  /** Reads through the pager's memory; after closing this must be refused. */
  load(page: PageIndex, into: Uint8Array): void;
}

/** How an environment is set: chosen by a property, run by run. */
export interface Setting {
  readonly level: 'port' | 'pager';
  readonly pages: number;
  readonly policy: Partial<PagerPolicy>;
  /** Whether the source answers at once, where that can be chosen. */
  readonly synchronous: boolean;
  /** Whether, where threads are real, the first read of the source ends the resolver's thread. */
  readonly fatalSource: boolean;
}

/** Where a property is run: memory, accessors, a source, and either a bare port or a pager. */
export interface Environment {
  readonly setting: Setting;
  readonly attachment: Attachment;
  readonly layout: MemoryLayout;
  readonly contents: Contents;
  readonly sites: readonly AccessSite[];
  readonly source: ScriptedSource;
  /** Whether moments are exact: a touch ends in the very step that touches memory. */
  readonly exact: boolean;
  /** The bare port, at level `port`: the body is its resolver. */
  readonly port: FaultPort;
  /** At level `pager`. */
  readonly pager: Paging;
  touch(request: TouchRequest): Touch;
  /** Discards pages from another thread, behind the pager's back. */
  discard(pages: PageRange): Task<OperationRef>;
  /** Unmaps pages from another thread. Deterministic environments only. */
  unmap(pages: PageRange): Task<OperationRef>;
  /**
   * Makes the resolver fail, as a fault in the handler would: at once, or at its next read where the source
   * is fatal.
   */
  breakHandler(): void;
  /** What a page holds, if it is there now, without touching it: undefined otherwise. */
  look(page: PageIndex): Uint8Array | undefined;
  /** Checks something at every moment from now on; what it returns is the failure. */
  watch(check: () => Failure | undefined): void;
  /** Adds an event to the trace. */
  note(event: TraceEvent): void;
}

/** Waits for tasks. */
export const settled = (...tasks: readonly Task[]): Wait => ({
  for: tasks,
  until: () => tasks.every((task) => task.settled),
});

/** Lets others go on before the body does. */
export const pause: Wait = { for: 'its-turn', until: () => true };

/** What a wait was for, as a failure has it. */
export const awaitedOf = ({ for: awaited }: Wait): Awaited =>
  typeof awaited === 'string'
    ? { what: awaited }
    : { tasks: awaited.filter(({ settled }) => !settled).map(({ ref }) => ref) };
