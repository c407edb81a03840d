import { constants } from 'node:os';

/**
 * Every way in which this library refuses or fails. Misuse of a function's arguments is a
 * TypeError or RangeError instead; partial progress is a number in a normal outcome.
 */
export const ERROR_CODES = [
  'ALREADY_REGISTERED', // EBUSY: another userfaultfd or region owns the range
  'BAD_ALIGNMENT', // an address, length or offset is no multiple of the page size
  'BAD_DESCRIPTOR', // EBADF, ENOTTY: a descriptor is not open, or of another kind than is needed
  'BAD_IMAGE', // an image, vector or snapshot file that does not parse; says where
  'BAD_RANGE', // zero length, overlap, past the end, outside every region
  'CLOSED', // the object was closed before or during the call
  'COVERAGE_GAP', // an access class the caller needs stays unmediated; names the sites
  'DEADLOCK', // the combination asked for would wait for itself
  'HANDLER_DIED', // the resolver ended without an `end` command
  'KERNEL', // a system call failed in a way that has no code of its own; see errno
  'LIMIT_REACHED', // an operation takes more steps or memory than its bound allows; says which
  'MEMORY_GONE', // ENOENT, ESRCH: the mapping or the process went away
  'MODULE_FAILED', // a module of the caller's throws, or does not come back, while it is loaded
  'MODULE_NOT_FOUND', // there is no such module, and nothing of that name
  'NATIVE_UNAVAILABLE', // the FFI library cannot be loaded on this platform
  'NOT_EMPTY', // memory has pages that its opener did not speak of
  'NO_DEVICE', // ENOENT, ENXIO: a device node or kernel facility is missing
  'NO_HUGE_PAGES', // ENOMEM: not enough huge pages reserved
  'NO_PERMISSION', // EPERM, EACCES: says which setting or privilege is missing
  'NOT_A_UAPI', // a module's default export is missing, or nothing that can be judged
  'NOT_SUPPORTED', // what the backend does not declare; nothing was changed
  'PAGE_FAILED', // an access waited for a page whose source failed; the page stays missing
  'PAGE_FROZEN', // the page is frozen and the policy is to refuse
  'PAGE_HELD', // the page is held by a plan and cannot be discarded or frozen
  'PAGE_MISSING', // a synchronous access met a page that is not present
  'PAGE_POISONED', // the page was poisoned
  'PAGE_VANISHED', // a present page was discarded past the pager
  'SOURCE_FAILED', // the source threw; see cause
  'SOURCE_LENGTH', // the source gave fewer or more bytes than asked
  'SOURCE_TIMEOUT', // the source did not answer in time
  'STOPPED', // the pager stopped after an earlier failure; see cause
  'UNKNOWN_EVENT', // the kernel sent an event this version does not know
] as const;

export type ErrorCode = (typeof ERROR_CODES)[number];

export interface ErrorDetails {
  /** Positive errno, where a system call failed. */
  readonly errno?: number | undefined;
  /** The system call or ioctl by name. */
  readonly syscall?: string | undefined;
  /** The range concerned; guest-physical where the layout is known. */
  readonly range?: { readonly start: bigint; readonly length: bigint } | undefined;
  /** What to do about it, one sentence. */
  readonly hint?: string | undefined;
  readonly cause?: unknown;
}

/** The one error class of this library. `code` is stable; messages are not. */
export class DemandPagingError extends Error {
  override readonly name = 'DemandPagingError';
  readonly code: ErrorCode;
  readonly errno: number | undefined;
  readonly syscall: string | undefined;
  readonly range: { readonly start: bigint; readonly length: bigint } | undefined;
  readonly hint: string | undefined;

  constructor(code: ErrorCode, message: string, details: ErrorDetails = {}) {
    const { errno, syscall, hint, cause } = details;
    const where = syscall ? ` [${syscall}${errno ? `: ${errnoName(errno)}` : ''}]` : '';
    super(`${message}${where}${hint ? `. ${hint}` : ''}`, cause === undefined ? {} : { cause });
    this.code = code;
    this.errno = errno;
    this.syscall = syscall;
    this.range = details.range;
    this.hint = hint;
  }

  /** What survives a structured clone between isolates; {@link fromPlain} is its inverse. */
  toPlain(): PlainError {
    const { code, message, errno, syscall, range, hint, stack } = this;
    return { code, message, errno, syscall, range, hint, stack, cause: plainCause(this.cause) };
  }

  static fromPlain(plain: PlainError): DemandPagingError {
    const { code, message, stack, ...details } = plain;
    const error = new DemandPagingError(code, message, { ...details, cause: revivedCause(plain.cause) });
    error.message = message; // the message is complete already
    if (stack !== undefined) error.stack = stack; // where it was thrown, in whatever isolate
    return error;
  }
}

export interface PlainError extends ErrorDetails {
  readonly code: ErrorCode;
  readonly message: string;
  readonly stack?: string | undefined;
}

/**
 * An error that is not of this library, as it crosses isolates. The other members of an error of Node's go
 * with it.
 */
interface PlainCause {
  readonly name: string;
  readonly message: string;
  readonly stack: string | undefined;
  readonly details: Readonly<Record<string, string | number>>;
  readonly cause: unknown;
}

/** What errors of Node's system calls say besides the message. */
const NODE_DETAILS = ['code', 'errno', 'syscall', 'path', 'address', 'port'] as const;

const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null;
const isPlainCause = (value: unknown): value is PlainCause =>
  isObject(value) && 'name' in value && 'details' in value;
const isPlain = (value: unknown): value is PlainError =>
  isObject(value) && 'code' in value && 'message' in value;

/**
 * A cause that survives a structured clone: an error with its stack and its own cause, anything else as text.
 */
function plainCause(cause: unknown): unknown {
  if (cause instanceof DemandPagingError) return cause.toPlain();
  if (!(cause instanceof Error)) return cause === undefined ? undefined : String(cause);
  const { name, message, stack } = cause;
  const given = cause as unknown as Record<string, unknown>;
  const details = Object.fromEntries(
    NODE_DETAILS.flatMap((key) => {
      const value = given[key];
      return typeof value === 'string' || typeof value === 'number' ? [[key, value]] : [];
    }),
  );
  return { name, message, stack, details, cause: plainCause(cause.cause) } satisfies PlainCause;
}

function revivedCause(cause: unknown): unknown {
  if (isPlainCause(cause)) {
    const { name, message, stack, details } = cause;
    const inner = revivedCause(cause.cause);
    const error = Object.assign(new Error(message, inner === undefined ? {} : { cause: inner }), details);
    Object.defineProperty(error, 'name', { value: name, configurable: true, writable: true });
    if (stack !== undefined) error.stack = stack;
    return error;
  }
  return isPlain(cause) ? DemandPagingError.fromPlain(cause) : (cause ?? undefined);
}

/** Turns anything thrown into a {@link DemandPagingError}, keeping one that already is. */
export function asDemandPagingError(thrown: unknown, code: ErrorCode, message: string): DemandPagingError {
  if (thrown instanceof DemandPagingError) return thrown;
  const reason = thrown instanceof Error ? thrown.message : String(thrown);
  return new DemandPagingError(code, `${message}: ${reason}`, { ...failedCallOf(thrown), cause: thrown });
}

/** The system call that an error of Node's is about, by name, with its positive errno. */
export function failedCallOf(thrown: unknown): Pick<ErrorDetails, 'errno' | 'syscall'> {
  const { errno, syscall } = (thrown ?? {}) as { readonly errno?: unknown; readonly syscall?: unknown };
  return typeof errno === 'number' && typeof syscall === 'string' ? { errno: Math.abs(errno), syscall } : {};
}

const NAMES = new Map<number, string>(
  Object.entries(constants.errno)
    .reverse()
    .map(([name, number]) => [number, name]),
);
NAMES.set(133, 'EHWPOISON'); // Linux only, and absent from Node's table

/** The name of a positive errno on this platform, or `errno N`. */
export const errnoName = (errno: number): string => NAMES.get(errno) ?? `errno ${errno}`;
