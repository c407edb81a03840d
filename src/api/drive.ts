import { type Gpa, type GpaRange } from './address.js';
import { DemandPagingError } from './error.js';
import { EventLoopTurns } from './event-loop-turns.js';
import { type Answer, type Ask, type Program, WINDOW_BYTES } from './program.js';

/**
 * The guest memory that drivers answer programs from: what {@link GuestMemory} offers, small enough for a
 * test to implement.
 */
export interface ProgramMemory {
  isPresent(range: GpaRange): boolean;
  readSync(address: Gpa, length: number): Uint8Array;
  writeSync(address: Gpa, bytes: Uint8Array): void;
  bring(ranges: readonly GpaRange[]): Promise<void>;
  hint(ranges: readonly GpaRange[]): void;
  readonly layout: { regionAt(address: Gpa): unknown };
}

/** One access of a program as a driver saw it. */
export interface Access {
  readonly ask: Ask;
  /** Whether its page was missing when it was asked for. */
  readonly missed: boolean;
}

export interface DriveOptions {
  /** Called for every ask, in order, before it is answered. */
  readonly trace?: (access: Access) => void;
}

export interface AsyncDriveOptions extends DriveOptions {
  /** Ends the program where it is; the driver rejects with the signal's reason. */
  readonly signal?: AbortSignal;
}

const EFAULT = 14;

/**
 * The `block` policy: runs a program, waiting for each missing page as an access blocked in the kernel would.
 * The event loop goes on meanwhile, also while the program walks over present pages. An access outside the
 * regions is answered with EFAULT. A page that is removed between arriving and being read is waited for
 * again. Errors: rejects with the pager's error where a page is unavailable.
 */
export async function drive<R>(
  program: Program<R>,
  memory: ProgramMemory,
  options: AsyncDriveOptions = {},
): Promise<R> {
  const { signal, trace } = options;
  const turns = new EventLoopTurns(signal);
  try {
    signal?.throwIfAborted();
    for (let step = program.next(); ;) {
      if (step.done) return step.value;
      const range = touched(step.value);
      const missed = range !== undefined && isMissing(memory, range);
      trace?.({ ask: step.value, missed });
      while (range && isMissing(memory, range)) await unlessAborted(memory.bring([range]), signal);
      if (turns.due()) await turns.take();
      step = program.next(answer(memory, step.value));
    }
  } finally {
    abandon(program);
  }
}

/** Ends a program that has not come to its end; one that has is left alone. */
const abandon = <R>(program: Program<R>): void => void program.return(undefined as R);

/** The promise, or a rejection with the signal's reason as soon as that is aborted. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (signal === undefined) return promise;
  let abort: (() => void) | undefined;
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason as Error);
    signal.addEventListener('abort', abort, { once: true });
    if (signal.aborted) abort();
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', abort!);
  }
}

/**
 * Runs a program on pages that are all present, without the event loop. Errors: PAGE_MISSING at the first
 * that is not; then the program is over.
 */
export function driveSync<R>(program: Program<R>, memory: ProgramMemory, options: DriveOptions = {}): R {
  try {
    for (let step = program.next(); ;) {
      if (step.done) return step.value;
      options.trace?.({ ask: step.value, missed: false });
      step = program.next(answer(memory, step.value));
    }
  } finally {
    abandon(program);
  }
}

/**
 * The `error` policy: a missing page fails the access at once with EFAULT, as a mechanism that cannot wait
 * does, and the program goes on as it sees fit. `missed`: the windows that failed, in order, each once.
 */
export function driveErroring<R>(
  program: Program<R>,
  memory: ProgramMemory,
  options: DriveOptions = {},
): { readonly result: R; readonly missed: readonly Gpa[] } {
  const missed = new Set<Gpa>();
  try {
    for (let step = program.next(); ;) {
      if (step.done) return { result: step.value, missed: [...missed] };
      const range = touched(step.value);
      const misses = range !== undefined && isMissing(memory, range);
      options.trace?.({ ask: step.value, missed: misses });
      if (misses) missed.add(windowOf(range.start));
      step = program.next(misses ? { answer: 'fault', errno: EFAULT } : answer(memory, step.value));
    }
  } finally {
    abandon(program);
  }
}

/**
 * The `error-then-retry` policy: runs the program under {@link driveErroring}, brings what it missed, and
 * runs it again from the start until nothing is missed. Whether that gives the right result is
 * a property of the program: one that consumes what it reads does not survive it. Throws RangeError
 * after `attempts` runs (default 10 000), so that a program that misses ever new pages ends.
 */
export async function driveRetrying<R>(
  start: () => Program<R>,
  memory: ProgramMemory,
  options: DriveOptions & { readonly attempts?: number } = {},
): Promise<{ readonly result: R; readonly runs: number }> {
  const { attempts = 10_000 } = options;
  for (let runs = 1; runs <= attempts; runs++) {
    const { result, missed } = driveErroring(start(), memory, options);
    if (missed.length === 0) return { result, runs };
    await memory.bring(missed.map((page) => ({ start: page, length: BigInt(WINDOW_BYTES) })));
  }
  throw new RangeError(`the program still misses pages after ${attempts} runs`);
}

/** What of the memory an ask reads or writes; undefined for none, or for what lies outside the regions. */
function touched(ask: Ask): GpaRange | undefined {
  return ask.ask === 'read'
    ? { start: ask.page, length: BigInt(WINDOW_BYTES) }
    : ask.ask === 'write'
      ? { start: ask.gpa, length: BigInt(ask.bytes.length) }
      : undefined;
}

const isMissing = (memory: ProgramMemory, range: GpaRange): boolean =>
  isInside(memory, range) && !memory.isPresent(range);

const isInside = ({ layout }: ProgramMemory, { start, length }: GpaRange): boolean =>
  layout.regionAt(start) !== undefined && layout.regionAt((start + length - 1n) as Gpa) !== undefined;

const windowOf = (address: Gpa): Gpa => (address - (address % BigInt(WINDOW_BYTES))) as Gpa;

/** Answers an ask whose page is present. */
function answer(memory: ProgramMemory, ask: Ask): Answer {
  const range = touched(ask);
  if (range && !isInside(memory, range)) return { answer: 'fault', errno: EFAULT };
  try {
    // A switch: this runs for every access of a program.
    switch (ask.ask) {
      case 'read':
        return { answer: 'bytes', bytes: memory.readSync(ask.page, WINDOW_BYTES) };
      case 'write':
        memory.writeSync(ask.gpa, ask.bytes);
        return { answer: 'done' };
      case 'visible':
        return { answer: 'visible', visible: memory.layout.regionAt(ask.gpa) !== undefined };
      case 'hint':
        if (ask.ranges.length > 0) memory.hint(ask.ranges);
        return { answer: 'done' };
    }
  } catch (error) {
    // Poison is what a kernel's own access meets as EFAULT; anything else is the caller's to see.
    if (error instanceof DemandPagingError && error.code === 'PAGE_POISONED')
      return { answer: 'fault', errno: EFAULT };
    throw error;
  }
}
