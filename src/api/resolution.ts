import { type PageIndex, type PageRange } from './address.js';

/**
 * What can be done about a page, in the kernel's verbs (ioctl_userfaultfd(2)), and one of our own:
 * `fail`, which lets the waiting accesses fail once and leaves the page missing.
 */
export type Verb =
  'copy' | 'zeropage' | 'continue' | 'move' | 'poison' | 'writeprotect' | 'rwprotect' | 'wake' | 'fail';

export const VERBS = [
  'copy',
  'zeropage',
  'continue',
  'move',
  'poison',
  'writeprotect',
  'rwprotect',
  'wake',
  'fail',
] as const satisfies readonly Verb[];

/** Verb codes of a {@link ResolutionBatch}. */
export const VERB = {
  copy: 0,
  zeropage: 1,
  continue: 2,
  move: 3,
  poison: 4,
  writeprotect: 5,
  rwprotect: 6,
  wake: 7,
  fail: 8,
} as const satisfies Record<Verb, number>;

/** One resolution. `pages` lie inside one region. Waiters are woken unless `wake` is false. */
export type Resolution =
  /** Install the bytes at `from`: an offset into the port's staging, or an address where `direct`. */
  | {
      readonly verb: 'copy';
      readonly pages: PageRange;
      readonly from: number;
      readonly direct?: boolean;
      readonly protect?: boolean;
      readonly wake?: boolean;
    }
  | { readonly verb: 'zeropage'; readonly pages: PageRange; readonly wake?: boolean }
  /**
   * Map the page of the page cache; with `from`, write those bytes into it first, through an alias of the
   * backend's.
   */
  | {
      readonly verb: 'continue';
      readonly pages: PageRange;
      readonly from?: number;
      readonly direct?: boolean;
      readonly protect?: boolean;
      readonly wake?: boolean;
    }
  /**
   * Move pages in without copying: from an offset into staging, or an address where `direct`. The source
   * range is empty after.
   */
  | {
      readonly verb: 'move';
      readonly pages: PageRange;
      readonly from: number;
      readonly direct?: boolean;
      readonly wake?: boolean;
    }
  /** Every later access fails loudly (SIGBUS, EHWPOISON). */
  | { readonly verb: 'poison'; readonly pages: PageRange; readonly wake?: boolean }
  | {
      readonly verb: 'writeprotect';
      readonly pages: PageRange;
      readonly protect: boolean;
      readonly wake?: boolean;
    }
  /** Like `writeprotect`, but any access faults (Linux 7.3). */
  | {
      readonly verb: 'rwprotect';
      readonly pages: PageRange;
      readonly protect: boolean;
      readonly wake?: boolean;
    }
  | { readonly verb: 'wake'; readonly pages: PageRange }
  | { readonly verb: 'fail'; readonly pages: PageRange };

/**
 * The outcome of a resolution: a value, never an exception. `done` is whole pages finished from the start of
 * the row, whatever the outcome.
 *
 * - `installed`: all pages done.
 * - `already-present` (EEXIST): the page after `done` was there; its waiters were woken all the same.
 * - `again` (EAGAIN): the memory is changing; read the events, then go on after `done`.
 * - `gone`: the page after `done` has no memory (ENOENT; those behind it may have), or the process has ended
 *   (ESRCH).
 * - `refused`: the backend does not declare this; nothing was changed.
 * - `failed`: anything else; see `errno`.
 */
export type Outcome = 'installed' | 'already-present' | 'again' | 'gone' | 'refused' | 'failed';

export const OUTCOMES = [
  'installed',
  'already-present',
  'again',
  'gone',
  'refused',
  'failed',
] as const satisfies readonly Outcome[];

/** Outcome codes of a {@link ResolutionBatch}. */
export const OUTCOME = {
  installed: 0,
  'already-present': 1,
  again: 2,
  gone: 3,
  refused: 4,
  failed: 5,
} as const satisfies Record<Outcome, number>;

/**
 * Flag bits of a {@link ResolutionBatch} row. `fill`: a `continue` that writes the bytes at `from` into the
 * page cache first.
 */
export const FLAG = { noWake: 1, protect: 2, direct: 4, fill: 8 } as const;

/** Whether a row of this verb takes bytes at `from`, which lie in staging unless the row is `direct`. */
export const takesBytes = (verb: number, flags: number): boolean =>
  verb === VERB.copy || verb === VERB.move || (verb === VERB.continue && (flags & FLAG.fill) !== 0);

/**
 * Resolutions in columns and, after {@link FaultPort.resolve}, an outcome a row. One is made and used again
 * and again. Columns are replaced when the batch grows: a port reads them anew from each batch it is given.
 */
export class ResolutionBatch {
  count = 0;
  verb: Uint8Array;
  page: Float64Array;
  span: Float64Array;
  from: Float64Array;
  flags: Uint8Array;
  /** Out: a value of {@link OUTCOME}. */
  outcome: Uint8Array;
  /** Out: whole pages finished from the start of the row. */
  done: Float64Array;
  /** Out: positive errno where the outcome is not `installed`, else 0. */
  errno: Int32Array;
  /** Out: the system call that the errno is of, by name, where it is known. */
  readonly syscall: (string | undefined)[];

  constructor(capacity: number) {
    if (!Number.isInteger(capacity) || capacity < 1) throw new RangeError(`a batch of ${capacity} rows`);
    this.verb = new Uint8Array(capacity);
    this.page = new Float64Array(capacity);
    this.span = new Float64Array(capacity);
    this.from = new Float64Array(capacity);
    this.flags = new Uint8Array(capacity);
    this.outcome = new Uint8Array(capacity);
    this.done = new Float64Array(capacity);
    this.errno = new Int32Array(capacity);
    this.syscall = new Array<string | undefined>(capacity);
  }

  get capacity(): number {
    return this.verb.length;
  }

  get full(): boolean {
    return this.count === this.capacity;
  }

  clear(): void {
    this.count = 0;
  }

  /** Makes room for twice as many rows. The rows stay, their outcomes do not. */
  grow(): void {
    const { count, verb, page, span, from, flags, syscall } = this;
    const larger = new ResolutionBatch(this.capacity * 2);
    larger.verb.set(verb);
    larger.page.set(page);
    larger.span.set(span);
    larger.from.set(from);
    larger.flags.set(flags);
    Object.assign(this, larger, { count, syscall });
  }

  /** Appends a row without making an object of it: the hot path. The batch must not be full. */
  pushRow(verb: number, page: PageIndex, span: number, from = 0, flags = 0): number {
    const row = this.count++;
    this.verb[row] = verb;
    this.page[row] = page;
    this.span[row] = span;
    this.from[row] = from;
    this.flags[row] = flags;
    return row;
  }

  /** Appends a resolution. The batch must not be full. */
  push(resolution: Resolution): number {
    const { verb, pages } = resolution;
    let flags = 0;
    if ('wake' in resolution && resolution.wake === false) flags |= FLAG.noWake;
    if ('protect' in resolution && resolution.protect) flags |= FLAG.protect;
    if ('direct' in resolution && resolution.direct) flags |= FLAG.direct;
    if (verb === 'continue' && resolution.from !== undefined) flags |= FLAG.fill;
    return this.pushRow(
      VERB[verb],
      pages.first,
      pages.count,
      ('from' in resolution && resolution.from) || 0,
      flags,
    );
  }

  /** Sets a row's outcome. Called by implementations of {@link FaultPort.resolve}. */
  settle(row: number, outcome: number, done: number, errno = 0, syscall?: string): void {
    this.syscall[row] = syscall;
    this.outcome[row] = outcome;
    this.done[row] = done;
    this.errno[row] = errno;
  }

  outcomeOf(row: number): Outcome {
    return OUTCOMES[this.outcome[row]!]!;
  }
}
