import { DemandPagingError, type ErrorCode } from '../api/error.js';
import { libc } from './ffi.js';
import { check, ERRNO, systemError } from './failure.js';
import * as raw from './raw.js';
import {
  UFFD_API,
  UFFD_FEATURE,
  UFFD_REGISTER_MODE,
  UFFD_USER_MODE_ONLY,
  uffdFeatureNames,
  uffdIoctlNames,
  USERFAULTFD_IOC_NEW,
  type UffdFeature,
  type UffdIoctl,
} from './userfaultfd-abi.js';
import { checkBits, UffdPort } from './userfaultfd-port.js';

export const USERFAULTFD_DEVICE = '/dev/userfaultfd';

const O_RDWR = 2;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const KNOWN_FEATURES = Object.values(UFFD_FEATURE).reduce((mask, bit) => mask | bit, 0);
const KNOWN_MODES = Object.values(UFFD_REGISTER_MODE).reduce((mask, bit) => mask | bit, 0);

export interface UserfaultfdOptions {
  /**
   * How to make the descriptor: `device` (/dev/userfaultfd, by its permissions), `syscall` (needs
   * CAP_SYS_PTRACE or vm.unprivileged_userfaultfd=1 unless `userModeOnly`), or `either`: the device,
   * and the system call where there is no device or no permission for it. Default `either`.
   */
  readonly via?: 'device' | 'syscall' | 'either' | undefined;
  /**
   * UFFD_USER_MODE_ONLY: the kernel's own accesses (KVM, vhost, read(2)) fail with EFAULT instead
   * of waiting. It changes the coverage, so it is never chosen silently. Default false.
   */
  readonly userModeOnly?: boolean | undefined;
  /** Whether read returns EAGAIN instead of waiting. poll(2) needs it. Default true. */
  readonly nonBlocking?: boolean | undefined;
  /** Bits of {@link UFFD_FEATURE} to switch on; default none. */
  readonly features?: number | undefined;
  /** Most messages per read; default 64. */
  readonly batch?: number | undefined;
}

function fromDevice(flags: number): number {
  const opened = libc().open(USERFAULTFD_DEVICE, O_RDWR | O_CLOEXEC, 0);
  if (opened === -1) return -libc().errno();
  const fd = raw.ioctl(opened, USERFAULTFD_IOC_NEW, flags);
  raw.close(opened);
  return fd;
}

const FROM_DEVICE = { codes: { [ERRNO.ENOENT]: 'NO_DEVICE' }, subject: USERFAULTFD_DEVICE } as const;

/** Makes the bare descriptor; no handshake yet. */
function create(options: UserfaultfdOptions): number {
  const flags =
    O_CLOEXEC |
    (options.nonBlocking === false ? 0 : O_NONBLOCK) |
    (options.userModeOnly ? UFFD_USER_MODE_ONLY : 0);
  const via = options.via ?? 'either';
  if (via !== 'syscall') {
    const fd = fromDevice(flags);
    if (fd >= 0) return fd;
    if (via === 'device') throw systemError('open', -fd, `cannot use ${USERFAULTFD_DEVICE}`, FROM_DEVICE);
  }
  return check(raw.syscall('userfaultfd', flags), 'userfaultfd', 'cannot create a userfaultfd');
}

const REGISTER_CODES: Readonly<Record<number, ErrorCode>> = {
  [ERRNO.EBUSY]: 'ALREADY_REGISTERED',
  [ERRNO.EINVAL]: 'NOT_SUPPORTED',
  [ERRNO.ENOMEM]: 'BAD_RANGE', // nothing is mapped there, or not all of it
  [ERRNO.EPERM]: 'NO_PERMISSION',
};

const REGISTER_HINTS: Readonly<Record<number, string>> = {
  [ERRNO.EBUSY]: 'Another userfaultfd holds part of the range',
  [ERRNO.EINVAL]:
    'The range is not page-aligned, or its kind of memory does not take this mode (minor needs shmem or hugetlb; guest_memfd needs a newer kernel; hugetlb wants huge page alignment)',
  [ERRNO.ENOMEM]: 'Part of the range is not mapped, or the process that made the userfaultfd has ended',
  [ERRNO.EPERM]: 'Shared file memory must be writable to be registered',
};

/** A userfaultfd of this process, or one that another process passed here. */
export class Userfaultfd {
  /**
   * The raw verbs, for the isolate that opened this. Others make their own {@link UffdPort} on {@link fd}.
   */
  readonly port: UffdPort;
  readonly fd: number;
  /** Features that were asked for and are on. */
  readonly enabled: number;
  /** Every feature the kernel answered, unknown bits included; 0n for an adopted descriptor. */
  readonly offered: bigint;
  #closed = false;

  private constructor(port: UffdPort, enabled: number, offered: bigint) {
    this.port = port;
    this.fd = port.fd;
    this.enabled = enabled;
    this.offered = offered;
  }

  /**
   * Makes a userfaultfd and shakes hands.
   * Blocks: never.
   * Errors: NO_DEVICE, NO_PERMISSION (the hint names the setting), NOT_SUPPORTED naming the features
   * that this kernel lacks, RangeError for bits outside {@link UFFD_FEATURE}, KERNEL.
   * Requires: CONFIG_USERFAULTFD. Source: userfaultfd(2), ioctl_userfaultfd(2).
   */
  static open(options: UserfaultfdOptions = {}): Userfaultfd {
    const features = options.features ?? 0;
    checkBits('userfaultfd features', features, KNOWN_FEATURES);
    const port = new UffdPort(create(options), options.batch);
    const result = port.handshake(UFFD_API, features);
    if (result === 0) return new Userfaultfd(port, features, port.features);
    const offered =
      result === -ERRNO.EINVAL && features !== 0 && port.handshake(UFFD_API, 0) === 0
        ? port.features
        : undefined;
    port.close();
    raw.close(port.fd);
    if (offered === undefined)
      throw systemError('ioctl UFFDIO_API', -result, 'the userfaultfd handshake failed');
    const lacking = uffdFeatureNames(BigInt(features) & ~offered);
    const which = lacking.length > 0 ? lacking.join(', ') : uffdFeatureNames(BigInt(features)).join(', ');
    const hint =
      lacking.length > 0
        ? 'They need a newer kernel'
        : 'Each exists here, but not in this combination or with these privileges';
    throw systemError('ioctl UFFDIO_API', ERRNO.EINVAL, `userfaultfd features refused: ${which}`, {
      codes: { [ERRNO.EINVAL]: 'NOT_SUPPORTED' },
      hint,
    });
  }

  /**
   * Takes over a descriptor that another process made, shook hands on and passed here: its addresses
   * are those of that process. `enabled` is what that process negotiated, as it said itself.
   */
  static adopt(fd: number, enabled = 0, batch?: number): Userfaultfd {
    return new Userfaultfd(new UffdPort(fd, batch), enabled, 0n);
  }

  /**
   * Registers `[start, start + length)`; returns the ioctls that work on that range.
   * Blocks: for the kernel's mmap lock: long when another thread maps, never for a fault.
   * Errors: ALREADY_REGISTERED (EBUSY), NOT_SUPPORTED (EINVAL: the wrong memory for this mode), BAD_RANGE
   * (ENOMEM: not mapped, or the process has ended), NO_PERMISSION (EPERM: not writable), CLOSED, RangeError.
   * Units: bytes, page-aligned. Source: UFFDIO_REGISTER.
   */
  register(start: number, length: number, mode: number): ReadonlySet<UffdIoctl> {
    this.#open();
    checkBits('register mode', mode, KNOWN_MODES);
    const result = this.port.register(start, length, mode);
    if (result < 0) {
      throw systemError('ioctl UFFDIO_REGISTER', -result, `cannot register 0x${start.toString(16)}`, {
        codes: REGISTER_CODES,
        hint: REGISTER_HINTS[-result],
        range: { start: BigInt(start), length: BigInt(length) },
      });
    }
    return new Set(uffdIoctlNames(this.port.ioctls));
  }

  /**
   * Ends the registration of a range; waiters are woken and then read what is there (zeros where
   * nothing is). Errors: MEMORY_GONE, KERNEL, CLOSED. Source: UFFDIO_UNREGISTER.
   */
  unregister(start: number, length: number): void {
    this.#open();
    this.#must('UNREGISTER', this.port.unregister(start, length), start, length);
  }

  /** Wakes every waiter in a range. Errors: as {@link unregister}. Source: UFFDIO_WAKE. */
  wake(start: number, length: number): void {
    this.#open();
    this.#must('WAKE', this.port.wake(start, length), start, length);
  }

  /**
   * Closes it; idempotent. A thread that waits in a range of it is woken and reads a *zero page*: resolve,
   * poison or stop every accessor first.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.port.close();
    raw.close(this.fd);
  }

  get closed(): boolean {
    return this.#closed;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #open(): void {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the userfaultfd was closed');
  }

  #must(ioctl: UffdIoctl, result: number, start: number, length: number): void {
    if (result < 0) throw uffdFailure(ioctl, result, start, length);
  }
}

/** The error for a raw verb's negative result, where it is none of the outcomes one goes on from. */
export function uffdFailure(
  ioctl: UffdIoctl,
  result: number,
  start: number,
  length: number,
): DemandPagingError {
  return systemError(`ioctl UFFDIO_${ioctl}`, -result, `userfaultfd refused 0x${start.toString(16)}`, {
    // UNREGISTER says ENOMEM where the other verbs say ESRCH or ENOENT
    codes: {
      [ERRNO.ENOENT]: 'MEMORY_GONE',
      [ERRNO.ENOMEM]: ioctl === 'UNREGISTER' ? 'MEMORY_GONE' : 'KERNEL',
      [ERRNO.EBADF]: 'CLOSED',
    },
    range: { start: BigInt(start), length: BigInt(length) },
  });
}

export interface UserfaultfdSupport {
  readonly features: readonly UffdFeature[];
  /** The whole mask, unknown bits included. */
  readonly mask: bigint;
  readonly ioctls: readonly UffdIoctl[];
}

/**
 * What this kernel's userfaultfd offers: opens one, asks, closes it.
 * Errors: as {@link Userfaultfd.open}.
 */
export function userfaultfdSupport(options: Omit<UserfaultfdOptions, 'features'> = {}): UserfaultfdSupport {
  using uffd = Userfaultfd.open(options);
  const ioctls = uffdIoctlNames(uffd.port.ioctls);
  return { features: uffdFeatureNames(uffd.offered), mask: uffd.offered, ioctls };
}
