import { libc, syscallNumber, type SyscallName } from './ffi.js';
import { UFFDIO } from './userfaultfd-abi.js';

/**
 * System calls for hot loops: the result, or `-errno`; nothing is thrown and nothing allocated.
 * Addresses are numbers. Whether a call blocks is the descriptor's business: these block the
 * thread, event loop included.
 */
function orErrno(result: number, call: string, request = 0): number {
  if (result !== -1) return result;
  const errno = libc().errno();
  failed = call;
  failedRequest = request;
  return -errno;
}

let failed = '';
let failedRequest = 0;

/**
 * The call here that failed last, of this isolate: `ioctl UFFDIO_COPY`, `mmap`. For naming what a loop has
 * found refused.
 */
export function failedCall(): string {
  if (failed !== 'ioctl') return failed;
  const verb = Object.entries(UFFDIO).find(([, request]) => request === failedRequest);
  return verb ? `ioctl UFFDIO_${verb[0]}` : `ioctl 0x${failedRequest.toString(16)}`;
}

/** open(2). The path ends where a zero byte does. */
export const open = (path: string, flags: number): number => orErrno(libc().open(path, flags, 0), 'open');

/** process_vm_readv(2), one piece: `local` and `remote` are addresses of an iovec. */
export const processRead = (pid: number, local: number, remote: number): number =>
  orErrno(libc().process_vm_readv(pid, local, 1, remote, 1, 0), 'process_vm_readv');

/** process_vm_writev(2), the same. */
export const processWrite = (pid: number, local: number, remote: number): number =>
  orErrno(libc().process_vm_writev(pid, local, 1, remote, 1, 0), 'process_vm_writev');

/** ioctl(2). `argument` is an address or an integer, as the request has it. */
export const ioctl = (fd: number, request: number, argument: number): number =>
  orErrno(libc().ioctl(fd, request, argument), 'ioctl', request);

/** read(2) into memory at `address`. */
export const read = (fd: number, address: number, length: number): number =>
  orErrno(libc().read(fd, address, length), 'read');

/** write(2) from memory at `address`. */
export const write = (fd: number, address: number, length: number): number =>
  orErrno(libc().write(fd, address, length), 'write');

/** pread(2). A destination that cannot be written is EFAULT (14), not a crash. */
export const pread = (fd: number, address: number, length: number, offset: number): number =>
  orErrno(libc().pread(fd, address, length, offset), 'pread');

/** lseek(2): where the offset is now, or `-errno`. */
export const lseek = (fd: number, offset: number, whence: number): number =>
  orErrno(libc().lseek(fd, offset, whence), 'lseek');

/** pwrite(2). */
export const pwrite = (fd: number, address: number, length: number, offset: number): number =>
  orErrno(libc().pwrite(fd, address, length, offset), 'pwrite');

/** poll(2) over `count` entries of 8 bytes at `address`; see {@link Poller}. */
export const poll = (address: number, count: number, timeout_ms: number): number =>
  orErrno(libc().poll(address, count, timeout_ms), 'poll');

/**
 * mmap(2): the address or `-errno`. With MAP_FIXED it replaces whatever was there, Node's own memory
 * included.
 */
export const mmap = (
  address: number,
  length: number,
  protection: number,
  flags: number,
  fd: number,
  offset: number,
): number => orErrno(libc().mmap(address, length, protection, flags, fd, offset), 'mmap');

/** munmap(2). */
export const munmap = (address: number, length: number): number =>
  orErrno(libc().munmap(address, length), 'munmap');

/** madvise(2). */
export const madvise = (address: number, length: number, advice: number): number =>
  orErrno(libc().madvise(address, length, advice), 'madvise');

/**
 * As {@link madvise}, which waits where a userfaultfd has events until one was read: on a thread of libuv's.
 * What fails is tried again here, for its errno; that does not wait, because what is refused is refused
 * before.
 */
export const madviseLater = async (address: number, length: number, advice: number): Promise<number> =>
  (await libc().madviseAsync(address, length, advice)) === 0 ? 0 : madvise(address, length, advice);

/** mprotect(2). */
export const mprotect = (address: number, length: number, protection: number): number =>
  orErrno(libc().mprotect(address, length, protection), 'mprotect');

/** mremap(2): the new address or `-errno`. */
export const mremap = (
  address: number,
  oldLength: number,
  newLength: number,
  flags: number,
  newAddress: number,
): number => orErrno(libc().mremap(address, oldLength, newLength, flags, newAddress), 'mremap');

/** fallocate(2). */
export const fallocate = (fd: number, mode: number, offset: number, length: number): number =>
  orErrno(libc().fallocate(fd, mode, offset, length), 'fallocate');

/** close(2). */
export const close = (fd: number): number => orErrno(libc().close(fd), 'close');

/** A system call by name, for those that the C library does not wrap. */
export const syscall = (name: SyscallName, a = 0, b = 0, c = 0, d = 0, e = 0, f = 0): number =>
  orErrno(libc().syscall(syscallNumber(name), a, b, c, d, e, f), name);
