import { type Gpa, type GpaRange } from './address.js';

/**
 * Sans-IO access programs: an operation on guest memory written as a generator that yields what it wants to
 * touch ({@link Ask}) and is handed the {@link Answer}. The program cannot reach memory in any other way, so
 * its driver sees every access, in order, and decides what a missing page does: wait, fail, or plan. All of
 * the arm64 part is written so; drivers are in `drive.ts`.
 */
export type Ask = ReadAsk | WriteAsk | VisibleAsk | HintAsk;

/**
 * Read the 4096-byte window that `page` (aligned to 4096) starts, whole. Windows are always 4096
 * bytes, whatever the host's page size: it is the unit of which KVM's guest accesses never cross a
 * boundary. Answered by `bytes` (exactly 4096, the program's own copy) or `fault`.
 */
export interface ReadAsk {
  readonly ask: 'read';
  readonly page: Gpa;
}

/**
 * Write `bytes` at `gpa`; the stretch lies inside one 4096-byte window. The program keeps no
 * reference to `bytes` after the yield. Answered by `done` or `fault`.
 */
export interface WriteAsk {
  readonly ask: 'write';
  readonly gpa: Gpa;
  readonly bytes: Uint8Array;
}

/** Is `gpa` inside a memslot? Touches nothing, so never waits. Answered by `visible`. */
export interface VisibleAsk {
  readonly ask: 'visible';
  readonly gpa: Gpa;
}

/**
 * "I may read these soon." Never waits and never fails; a driver may prefetch or ignore it. Without ranges it
 * only says that the program is still at work, for drivers with an event loop to look after.
 * `why` names the structure, for traces. Answered by `done`.
 */
export interface HintAsk {
  readonly ask: 'hint';
  readonly ranges: readonly GpaRange[];
  readonly why: string;
}

/** What an {@link Ask} is answered with. */
export type Answer =
  | { readonly answer: 'bytes'; readonly bytes: Uint8Array }
  | { readonly answer: 'done' }
  | { readonly answer: 'visible'; readonly visible: boolean }
  /** The access failed at once; `errno` is positive (EFAULT 14 for a page that is not there). */
  | { readonly answer: 'fault'; readonly errno: number };

/** An operation that touches guest memory only through what it yields. */
export type Program<R> = Generator<Ask, R, Answer>;

/** Bytes in one window of a {@link Program}. */
export const WINDOW_BYTES = 4096;

/** What {@link readWindow} and {@link writeBytes} return in place of success: a positive errno. */
export type Errno = number;

/** Yields one read and returns the window's bytes, or the errno with which the access failed. */
export function* readWindow(page: Gpa): Program<Uint8Array | Errno> {
  const answer = yield { ask: 'read', page };
  if (answer.answer === 'bytes') return answer.bytes;
  if (answer.answer === 'fault') return answer.errno;
  throw new TypeError(`a read was answered by '${answer.answer}'`);
}

/** Yields one write and returns 0, or the errno with which the access failed. */
export function* writeBytes(gpa: Gpa, bytes: Uint8Array): Program<Errno> {
  const answer = yield { ask: 'write', gpa, bytes };
  if (answer.answer === 'done') return 0;
  if (answer.answer === 'fault') return answer.errno;
  throw new TypeError(`a write was answered by '${answer.answer}'`);
}

/** Yields one visibility check. */
export function* isVisible(gpa: Gpa): Program<boolean> {
  const answer = yield { ask: 'visible', gpa };
  if (answer.answer === 'visible') return answer.visible;
  throw new TypeError(`a visibility check was answered by '${answer.answer}'`);
}

/** Yields one hint. */
export function* hint(why: string, ranges: readonly GpaRange[]): Program<void> {
  yield { ask: 'hint', why, ranges };
}
