import { ERRNO } from './failure.js';
import { libc } from './ffi.js';
import { NativeBlock, store64 } from './native-block.js';
import * as raw from './raw.js';

const IOVEC_BYTES = 16;
let vectors: NativeBlock | undefined;

function setVectors(local: number, remote: number, length: number): number {
  vectors ??= new NativeBlock(2 * IOVEC_BYTES);
  store64(vectors.words, 0, local);
  store64(vectors.words, 2, length);
  store64(vectors.words, 4, remote);
  store64(vectors.words, 6, length);
  return vectors.address;
}

/**
 * Copies `length` bytes from `from` in process `pid` (this one by default) to `to` here, through the
 * kernel: an unavailable page is -EFAULT and does not end the process. On a missing page of a
 * registered range it waits like a touch, and is a *kernel* access (EFAULT under UFFD_USER_MODE_ONLY
 * and UFFD_FEATURE_SIGBUS).
 * Returns the bytes copied (short when a later page failed) or `-errno`.
 * Source: process_vm_readv(2).
 */
export function readMemory(to: number, from: number, length: number, pid: number = libc().getpid()): number {
  const local = setVectors(to, from, length);
  return raw.processRead(pid, local, local + IOVEC_BYTES);
}

/** The other way: from `from` here to `to` in process `pid`. Otherwise as {@link readMemory}. */
export function writeMemory(to: number, from: number, length: number, pid: number = libc().getpid()): number {
  const local = setVectors(from, to, length);
  return raw.processWrite(pid, local, local + IOVEC_BYTES);
}

/** What to do where the kernel refuses these calls on this very process: no setting of ptrace does. */
export const OWN_MEMORY_HINT =
  'A seccomp filter refuses process_vm_readv and process_vm_writev, as those of containers do without CAP_SYS_PTRACE: allow both';

/** Whether a result means that the memory could not be reached, as opposed to misuse. */
export const isUnreachable = (result: number): boolean =>
  result === -ERRNO.EFAULT || result === -ERRNO.EHWPOISON || result === -ERRNO.EIO;
