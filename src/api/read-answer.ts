import { joinedRuns } from './byte-runs.js';
import { DemandPagingError } from './error.js';

/** Bytes of a read, counted from its first. */
export interface ZeroRange {
  readonly start: number;
  readonly length: number;
}

/** What a source answers that knows which of the bytes are zeros: those it need not have written. */
export interface SparseRead {
  /** Bytes given: as many as were asked for. */
  readonly length: number;
  readonly zeros: readonly ZeroRange[];
}

/** What {@link PageSource.read} answers: how many bytes it gave; or that, and which of them are zeros. */
export type ReadAnswer = number | SparseRead;

/** The ranges that an answer says are zeros, in ascending order and apart; or what is wrong with it. */
export function zerosOf(answer: unknown, asked: number): readonly ZeroRange[] | DemandPagingError {
  if (typeof answer === 'number') return lengthError(answer, asked) ?? [];
  if (!isSparse(answer))
    return new DemandPagingError(
      'SOURCE_FAILED',
      'the source answered with neither a number of bytes nor a sparse read',
    );
  const wrong =
    lengthError(answer.length, asked) ?? answer.zeros.map((range) => rangeError(range, asked)).find(Boolean);
  return wrong ?? joinedRuns(answer.zeros);
}

const isSparse = (answer: unknown): answer is SparseRead =>
  typeof answer === 'object' &&
  answer !== null &&
  'length' in answer &&
  'zeros' in answer &&
  Array.isArray(answer.zeros);

function rangeError(range: ZeroRange, asked: number): DemandPagingError | undefined {
  const { start, length } = range ?? {};
  if (
    Number.isInteger(start) &&
    Number.isInteger(length) &&
    start >= 0 &&
    length >= 0 &&
    start + length <= asked
  )
    return undefined;
  const at = `${String(start)}+${String(length)}`;
  return new DemandPagingError('SOURCE_FAILED', `the source reported zeros at ${at} of ${asked} bytes`);
}

/** SOURCE_LENGTH where a source gave anything but what was asked; undefined where it gave exactly that. */
function lengthError(given: number, asked: number): DemandPagingError | undefined {
  if (given === asked) return undefined;
  return new DemandPagingError('SOURCE_LENGTH', `the source gave ${given} bytes where ${asked} were asked`, {
    hint:
      given < asked
        ? 'Was the image truncated while it is in use?'
        : 'A source must give exactly what is asked',
  });
}

/**
 * Writes the zeros of which a page is only in part; those of whole pages stay unwritten, and their pages come
 * back. `pages[n]` is set where page `n` of the bytes is all zeros.
 */
export function zeroPages(zeros: readonly ZeroRange[], bytes: Uint8Array, pageSize: number): Uint8Array {
  const pages = new Uint8Array(bytes.length / pageSize);
  for (const { start, length } of zeros) {
    const end = start + length;
    const first = Math.ceil(start / pageSize);
    const stop = Math.floor(end / pageSize);
    if (first >= stop) bytes.fill(0, start, end);
    else {
      pages.fill(1, first, stop);
      bytes.fill(0, start, first * pageSize);
      bytes.fill(0, stop * pageSize, end);
    }
  }
  return pages;
}
