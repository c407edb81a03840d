import { constants } from 'node:os';
import { DemandPagingError, type ErrorCode } from './error.js';
import { type FaultKind, type MemoryEvent } from './fault.js';
import { type Verb } from './resolution.js';
import { type MemoryKind } from './layout.js';

/**
 * Capability has three layers. *Requirements*: what the host must offer before a backend can open at
 * all, found by probing. *Supports*: what was negotiated when it opened, frozen from then on. *Verbs
 * per region*: what the kernel answered for one registered range. Exact both ways: what is declared
 * works; what is not is refused with NOT_SUPPORTED and changes nothing.
 */
export interface Requirement {
  /** What is needed, in a few words: `/dev/userfaultfd`. */
  readonly what: string;
  readonly met: boolean;
  /** What was found, one line. */
  readonly found: string;
  /** The exact setting or privilege that closes the gap; empty when met. */
  readonly remedy: string;
  /** What opening the backend without it throws. Default NO_DEVICE. */
  readonly code?: ErrorCode;
  /** The system call or ioctl that was refused, by name, and its positive errno. */
  readonly syscall?: string | undefined;
  readonly errno?: number | undefined;
}

/** A requirement that is not met, as trying it out has shown. `remedy`: where the error knows none. */
export function unmet(what: string, thrown: unknown, remedy = ''): Requirement {
  if (!(thrown instanceof DemandPagingError)) return { what, met: false, found: String(thrown), remedy };
  const { message, hint, code, syscall, errno } = thrown;
  // A message ends with its hint, which is the remedy here.
  const found = hint === undefined ? message : message.replace(`. ${hint}`, '');
  return { what, met: false, found, remedy: hint ?? remedy, code, syscall, errno };
}

/** A requirement that is not met: a system call was refused that should not be. */
export function refused(what: string, thrown: unknown): Requirement {
  const { syscall, errno } = thrown instanceof DemandPagingError ? thrown : {};
  const remedy =
    errno === constants.errno.EMFILE || errno === constants.errno.ENFILE
      ? 'Raise the limit on open files: ulimit -n, or fs.file-max'
      : `Allow ${syscall ?? 'it'}: a seccomp filter (a container's, a unit's SystemCallFilter) may refuse it, or a limit (ulimit -a)`;
  return unmet(what, thrown, remedy);
}

export interface Requirements {
  readonly met: boolean;
  readonly list: readonly Requirement[];
}

export const requirements = (list: readonly Requirement[]): Requirements => ({
  met: list.every(({ met }) => met),
  list,
});

/** What a backend does, on this host, with these options. */
export interface Supports {
  readonly verbs: readonly Verb[];
  readonly faults: readonly FaultKind[];
  readonly events: readonly MemoryEvent['kind'][];
  readonly memory: readonly MemoryKind[];
  /** Faults carry the accessor's thread id. */
  readonly threadIds: boolean;
  /** Pages can go missing again after they were present. */
  readonly discard: boolean;
  /**
   * A present page can be made to fault without losing its contents. `missing-only`: just pages not there
   * yet.
   */
  readonly freeze: 'full' | 'missing-only';
  /** `copy` takes its bytes from any address of this process, not only from staging. */
  readonly directCopy: boolean;
  /** The verb that brings contents, where there is a choice. */
  readonly install: 'copy' | 'continue' | 'move';
  /** `continue` can write contents into the page cache first. */
  readonly fill: boolean;
  /** The port can tell whether a page is physically there. */
  readonly residency: boolean;
  /** Regions can be added and removed while the pager runs. */
  readonly changeRegions: boolean;
  /** How accessors of missing pages are stopped, where that is uniform. */
  readonly stops: 'blocks' | 'errors' | 'exits' | 'mixed';
}

/** Whether `supports` declares everything a list of verbs needs; the missing ones otherwise. */
export const missingVerbs = (supports: Supports, verbs: readonly Verb[]): readonly Verb[] =>
  verbs.filter((verb) => !supports.verbs.includes(verb));
