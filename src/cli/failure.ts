import { DemandPagingError } from '../api/index.js';
import { systemError } from '../linux/index.js';

/** Something wrong with the command line; exit status 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** Exit statuses of the program. */
export const EXIT = { ok: 0, failed: 1, usage: 2, interrupted: 130 } as const;

/** A failure as it crosses from one process to another. */
export interface PlainFailure {
  /** Undefined for what is no error of the library's. */
  readonly code: string | undefined;
  readonly message: string;
  readonly hint: string | undefined;
}

/** A failure, ready to cross. */
export function plainFailure(thrown: unknown): PlainFailure {
  if (isFailedCall(thrown)) return plainFailure(failureOfCall(thrown));
  if (thrown instanceof DemandPagingError)
    return { code: thrown.code, message: thrown.message, hint: thrown.hint };
  const misuse = thrown instanceof RangeError || thrown instanceof TypeError;
  const message =
    thrown instanceof Error ? ((misuse ? undefined : thrown.stack) ?? thrown.message) : String(thrown);
  return { code: undefined, message, hint: undefined };
}

export interface FailureText {
  readonly lines: readonly string[];
  readonly status: number;
}

/** What the user reads when a command fails, and the status it ends with. */
export function describeFailure(thrown: unknown): FailureText {
  if (thrown instanceof UsageError) return { lines: [`error: ${thrown.message}`], status: EXIT.usage };
  if (thrown instanceof RangeError || thrown instanceof TypeError) {
    // Misuse that only the library could see: an option's value out of its bounds.
    return { lines: [`error: ${thrown.message}`], status: EXIT.usage };
  }
  if (thrown instanceof DemandPagingError) {
    return { lines: failureLines(thrown), status: EXIT.failed };
  }
  if (isFailedCall(thrown)) return describeFailure(failureOfCall(thrown));
  const text = thrown instanceof Error ? (thrown.stack ?? thrown.message) : String(thrown);
  return { lines: [`error: ${text}`], status: EXIT.failed };
}

/** What Node throws where a system call fails. */
const isFailedCall = (thrown: unknown): thrown is NodeJS.ErrnoException =>
  thrown instanceof Error &&
  !(thrown instanceof DemandPagingError) && // which says itself what failed
  'errno' in thrown &&
  typeof thrown.errno === 'number' &&
  'syscall' in thrown;

/** A system call of Node's that failed, as an error of the library's; `what` failed by it. Anything else stays as it is. */
export function failureOfCall(thrown: unknown, what?: string, hint?: string): unknown {
  if (!isFailedCall(thrown)) return thrown;
  const { syscall, errno, path, message } = thrown;
  // `ENOSPC: no space left on device, write`
  const said = /^[A-Z0-9]+: ([^,]+)/.exec(message)?.[1] ?? message;
  return systemError(syscall!, -errno!, what ?? `${path === undefined ? '' : `${path}: `}${said}`, { hint });
}

/** A message of the library's ends with its hint; here each has its line. */
export function stripHint({
  message,
  hint,
}: {
  readonly message: string;
  readonly hint: string | undefined;
}): string {
  const tail = `. ${hint}`;
  return hint !== undefined && message.endsWith(tail) ? message.slice(0, -tail.length) : message;
}

/** A failure in lines: `error CODE: message`, and what to do about it. */
export function failureLines({ code, message, hint }: PlainFailure): string[] {
  const lines = [`error${code === undefined ? '' : ` ${code}`}: ${stripHint({ message, hint })}`];
  if (hint !== undefined) lines.push(`hint: ${hint}`);
  return lines;
}
