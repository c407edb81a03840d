import { type FaultKind, type MemoryEvent } from '../../api/fault.js';

/** Events that a process can read about itself. */
export type LocalEvent = Exclude<MemoryEvent['kind'], 'fork'>;

export interface UserfaultfdBackendOptions {
  /**
   * How the descriptor is made: `device` (/dev/userfaultfd), `syscall` (CAP_SYS_PTRACE or
   * vm.unprivileged_userfaultfd=1), `auto`: the device, then the system call; never silently
   * user-mode-only. Default `auto`.
   */
  readonly via?: 'auto' | 'device' | 'syscall' | undefined;
  /**
   * UFFD_USER_MODE_ONLY: needs no privilege, but the kernel's own accesses (KVM, vhost, system call buffers)
   * fail with EFAULT instead of waiting, and the coverage says so. Every class of accesses has such a site
   * (the VMM's own are its system calls), so that a pager opens with `needs: []` alone. Default false.
   */
  readonly userModeOnly?: boolean | undefined;
  /**
   * UFFD_FEATURE_SIGBUS: no access waits and none is reported; each fails at once (SIGBUS, EFAULT), so that a
   * pager opens with `needs: []` alone. A stand-in for interfaces that err instead of blocking. Default
   * false.
   */
  readonly sigbus?: boolean | undefined;
  /**
   * Faults to be told of. `missing` is always among them, because a page nobody reports reads as zeros.
   * `minor` needs shmem or hugetlb memory; `rwp` needs Linux 7.3, and excludes `write-protect`, because the
   * page tables have one bit for both. Default `missing`, and `minor` where `install` is `continue`.
   */
  readonly faults?: readonly FaultKind[] | undefined;
  /**
   * With `write-protect`: writes to protected pages are noted in the page tables (pagemap) and not
   * reported, so nobody waits. Default false.
   */
  readonly asyncWriteProtect?: boolean | undefined;
  /**
   * What others do to the memory and the resolver hears of. Default all three. Not `fork`: a fork() of this
   * process holds the C library's heap locks until its event is read, and the thread that reads it may need
   * the heap: both wait for ever. Memory mapped here is not inherited by children instead (MADV_DONTFORK).
   */
  readonly events?: readonly LocalEvent[] | undefined;
  /**
   * The verb that brings contents: `copy`; `continue` (shmem, hugetlb); `move` (anonymous). Default `copy`.
   */
  readonly install?: 'copy' | 'continue' | 'move' | undefined;
  /** Resolvers to divide the memory among, at most; they meet at multiples of 4096 pages. Default 1. */
  readonly shards?: number | undefined;
  /** Staging memory of each port, in bytes; at least 2 MiB and the largest page size. Default 4 MiB. */
  readonly staging_bytes?: number | undefined;
}

/** The options with every default filled in. */
export interface UserfaultfdChoice {
  readonly via: 'auto' | 'device' | 'syscall';
  readonly userModeOnly: boolean;
  readonly sigbus: boolean;
  readonly faults: readonly FaultKind[];
  readonly asyncWriteProtect: boolean;
  readonly events: readonly MemoryEvent['kind'][];
  readonly install: 'copy' | 'continue' | 'move';
  readonly shards: number;
  readonly staging_bytes: number;
}

const FAULTS: readonly FaultKind[] = ['missing', 'minor', 'write-protect', 'rwp'];
const LOCAL_EVENTS: readonly LocalEvent[] = ['remove', 'unmap', 'remap'];
/** A handler in another process can read of forks, too. */
export const FOREIGN_EVENTS: readonly MemoryEvent['kind'][] = [...LOCAL_EVENTS, 'fork'];
const LEAST_STAGING = 0x20_0000;

/** Fills in defaults. Throws RangeError naming the option that is out of bounds. */
export function completeOptions(
  given: Omit<UserfaultfdBackendOptions, 'events'> & {
    readonly events?: readonly MemoryEvent['kind'][] | undefined;
  } = {},
  allowedEvents: readonly MemoryEvent['kind'][] = LOCAL_EVENTS,
): UserfaultfdChoice {
  const install = given.install ?? 'copy';
  const faults = given.faults ?? (install === 'continue' ? ['missing', 'minor'] : ['missing']);
  const choice: UserfaultfdChoice = {
    via: given.via ?? 'auto',
    userModeOnly: given.userModeOnly ?? false,
    sigbus: given.sigbus ?? false,
    faults,
    asyncWriteProtect: given.asyncWriteProtect ?? false,
    events: given.events ?? LOCAL_EVENTS,
    install,
    shards: given.shards ?? 1,
    staging_bytes: given.staging_bytes ?? 2 * LEAST_STAGING,
  };
  oneOf('via', choice.via, ['auto', 'device', 'syscall']);
  oneOf('install', install, ['copy', 'continue', 'move']);
  for (const fault of faults) oneOf('faults', fault, FAULTS);
  for (const event of choice.events) oneOf('events', event, allowedEvents);
  if (!faults.includes('missing'))
    throw new RangeError("faults must include 'missing': a page nobody reports reads as zeros");
  if (install === 'continue' && !faults.includes('minor'))
    throw new RangeError("installing by continue needs 'minor' among the faults");
  if (faults.includes('write-protect') && faults.includes('rwp'))
    throw new RangeError(
      "faults take 'write-protect' or 'rwp', not both: page tables have one bit for the two",
    );
  if (choice.asyncWriteProtect && !faults.includes('write-protect'))
    throw new RangeError("asyncWriteProtect needs 'write-protect' among the faults");
  if (!Number.isInteger(choice.shards) || choice.shards < 1)
    throw new RangeError(`shards is ${choice.shards}; it takes a whole number from 1`);
  if (!Number.isInteger(choice.staging_bytes) || choice.staging_bytes < LEAST_STAGING) {
    throw new RangeError(
      `staging_bytes is ${choice.staging_bytes}; it takes a whole number from ${LEAST_STAGING}`,
    );
  }
  return choice;
}

function oneOf(name: string, value: string, allowed: readonly string[]): void {
  if (!allowed.includes(value)) throw new RangeError(`${name} is '${value}'; it takes ${allowed.join(', ')}`);
}
