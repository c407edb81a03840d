import { DemandPagingError, type ErrorCode } from '../api/error.js';

/** Positive errno values by name: Linux numbers them alike on x86-64 and arm64. */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENOTTY: 25,
  ENOSPC: 28,
  ESPIPE: 29,
  EPIPE: 32,
  ENOSYS: 38,
  EOPNOTSUPP: 95,
  EHWPOISON: 133,
} as const;

export type ErrnoName = keyof typeof ERRNO;

/**
 * Errors of a system call filter: no kernel refuses a userfaultfd verb with them.
 */
export const isFiltered = (errno: number): boolean =>
  errno === ERRNO.EPERM || errno === ERRNO.EACCES || errno === ERRNO.ENOSYS;

/** The meaning of an errno unless the call says otherwise. */
const CODES: ReadonlyMap<number, ErrorCode> = new Map<number, ErrorCode>([
  [ERRNO.EPERM, 'NO_PERMISSION'],
  [ERRNO.EACCES, 'NO_PERMISSION'],
  [ERRNO.ENXIO, 'NO_DEVICE'],
  [ERRNO.ENODEV, 'NO_DEVICE'],
  [ERRNO.ESRCH, 'MEMORY_GONE'],
  [ERRNO.ENOTTY, 'NOT_SUPPORTED'],
  [ERRNO.ENOSYS, 'NOT_SUPPORTED'],
  [ERRNO.EOPNOTSUPP, 'NOT_SUPPORTED'],
]);

/** Settings that cure a failure, by system call or device, then errno. */
const HINTS: Readonly<Record<string, Readonly<Record<number, string>>>> = {
  '/dev/userfaultfd': {
    [ERRNO.EPERM]:
      'The device node refuses this user: chmod or chgrp /dev/userfaultfd, or run with CAP_SYS_PTRACE and use the system call',
    [ERRNO.EACCES]:
      'Change the group or mode of /dev/userfaultfd (chgrp, chmod) so that this user may read and write it; only root may by default',
    [ERRNO.ENOENT]:
      'The kernel has no /dev/userfaultfd (Linux 6.1 or newer with CONFIG_USERFAULTFD), or this container does not show it: pass the device in, or use the system call',
  },
  userfaultfd: {
    [ERRNO.EPERM]:
      'Set sysctl vm.unprivileged_userfaultfd=1, run with CAP_SYS_PTRACE, or give this user access to /dev/userfaultfd; UFFD_USER_MODE_ONLY needs none of them, but leaves kernel accesses unmediated (EFAULT)',
    [ERRNO.ENOSYS]: 'The kernel lacks CONFIG_USERFAULTFD, or a seccomp filter hides the system call',
  },
  '/dev/kvm': {
    [ERRNO.EPERM]: 'Add this user to the group that owns /dev/kvm, or chmod it',
    [ERRNO.EACCES]: 'Add this user to the group that owns /dev/kvm (usually "kvm"), or chmod it',
    [ERRNO.ENOENT]:
      'No /dev/kvm: load kvm_intel, kvm_amd or boot arm64 with KVM, switch on virtualisation in the firmware or nested virtualisation in the hypervisor, or pass the device into the container',
    [ERRNO.ENODEV]: 'The module is loaded but the CPU offers no virtualisation here',
  },
  process_vm_readv: {
    [ERRNO.EPERM]:
      'Another process needs the same user with sysctl kernel.yama.ptrace_scope=0, or CAP_SYS_PTRACE',
  },
  process_vm_writev: {
    [ERRNO.EPERM]:
      'Another process needs the same user with sysctl kernel.yama.ptrace_scope=0, or CAP_SYS_PTRACE',
  },
  pidfd_getfd: {
    [ERRNO.EPERM]:
      'Taking a descriptor from another process needs the same user with sysctl kernel.yama.ptrace_scope=0, or CAP_SYS_PTRACE',
  },
  '/proc/sys/vm/nr_hugepages': {
    [ERRNO.EACCES]: 'Only root may change the huge page pool: sysctl vm.nr_hugepages=N',
    [ERRNO.EPERM]: 'Only root may change the huge page pool: sysctl vm.nr_hugepages=N',
  },
};

export interface FailureContext {
  /** Meanings of an errno for this call; they override the general ones. */
  readonly codes?: Readonly<Record<number, ErrorCode>> | undefined;
  /** Key of the table of hints, if it is not the system call: a device path. */
  readonly subject?: string | undefined;
  readonly hint?: string | undefined;
  readonly range?: { readonly start: bigint; readonly length: bigint } | undefined;
}

/** The error for a failed system call: `errno` is positive. Blocks: never. */
export function systemError(
  syscall: string,
  errno: number,
  message: string,
  context: FailureContext = {},
): DemandPagingError {
  const hints = HINTS[context.subject ?? syscall];
  const code = context.codes?.[errno] ?? CODES.get(errno) ?? 'KERNEL';
  return new DemandPagingError(code, message, {
    syscall,
    errno,
    range: context.range,
    hint: context.hint ?? hints?.[errno],
  });
}

/** Returns a raw result, or throws the {@link systemError} of `-errno`. */
export function check(result: number, syscall: string, message: string, context?: FailureContext): number {
  if (result < 0) throw systemError(syscall, -result, message, context);
  return result;
}
