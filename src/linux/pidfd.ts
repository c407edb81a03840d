import { check } from './failure.js';
import * as raw from './raw.js';

/**
 * A descriptor that refers to a process, close-on-exec; it polls readable when the process ends. Source:
 * pidfd_open(2).
 */
export const openProcess = (pid: number): number =>
  check(raw.syscall('pidfd_open', pid, 0), 'pidfd_open', `cannot refer to process ${pid}`);

/**
 * A copy of descriptor `fd` of another process. Errors: NO_PERMISSION (the hint names the setting),
 * MEMORY_GONE (ESRCH: it ended), KERNEL (EBADF). Requires: Linux 5.6. Source: pidfd_getfd(2).
 */
export const takeDescriptor = (process: number, fd: number): number =>
  check(raw.syscall('pidfd_getfd', process, fd, 0), 'pidfd_getfd', `cannot take descriptor ${fd}`);
