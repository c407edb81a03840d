import { libc } from './ffi.js';
import { check } from './failure.js';
import { NativeBlock } from './native-block.js';
import * as raw from './raw.js';

const F_DUPFD_CLOEXEC = 1030;
const F_GETFD = 1;
const F_SETFD = 2;
const F_GETFL = 3;
const F_SETFL = 4;
const FD_CLOEXEC = 1;
const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;

const settle = (result: number, syscall: string, message: string): number =>
  check(result === -1 ? -libc().errno() : result, syscall, message);

/** Open flags for {@link openDescriptor}, equal on x86-64 and arm64. */
export const O = { RDONLY: 0, WRONLY: 1, RDWR: 2, NONBLOCK: O_NONBLOCK, CLOEXEC: O_CLOEXEC } as const;

/**
 * open(2) with O_CLOEXEC always set. Errors: NO_DEVICE (ENOENT, ENXIO), NO_PERMISSION with a hint for
 * the devices this library knows, KERNEL.
 */
export function openDescriptor(path: string, flags: number): number {
  const fd = libc().open(path, flags | O_CLOEXEC, 0);
  return check(fd === -1 ? -libc().errno() : fd, 'open', `cannot open ${path}`, {
    subject: path,
    codes: { 2: 'NO_DEVICE' },
  });
}

/** A second descriptor for the same open file, close-on-exec. Errors: KERNEL (EBADF, EMFILE). */
export const duplicate = (fd: number): number =>
  settle(libc().fcntl(fd, F_DUPFD_CLOEXEC, 0), 'fcntl', 'cannot duplicate a descriptor');

/**
 * Sets or clears FD_CLOEXEC. KVM hands out guest_memfd descriptors without it: set it at once, or a
 * child process keeps the file alive. Errors: KERNEL (EBADF).
 */
export function setCloseOnExec(fd: number, on: boolean): void {
  const flags = settle(libc().fcntl(fd, F_GETFD, 0), 'fcntl', 'cannot read descriptor flags');
  settle(
    libc().fcntl(fd, F_SETFD, on ? flags | FD_CLOEXEC : flags & ~FD_CLOEXEC),
    'fcntl',
    'cannot set FD_CLOEXEC',
  );
}

export const isCloseOnExec = (fd: number): boolean =>
  (settle(libc().fcntl(fd, F_GETFD, 0), 'fcntl', 'cannot read descriptor flags') & FD_CLOEXEC) !== 0;

/** Sets or clears O_NONBLOCK of the open file, for every descriptor of it. Errors: KERNEL (EBADF). */
export function setNonBlocking(fd: number, on: boolean): void {
  const flags = settle(libc().fcntl(fd, F_GETFL, 0), 'fcntl', 'cannot read file flags');
  settle(
    libc().fcntl(fd, F_SETFL, on ? flags | O_NONBLOCK : flags & ~O_NONBLOCK),
    'fcntl',
    'cannot set O_NONBLOCK',
  );
}

/** A pipe, close-on-exec: `[read end, write end]`. Errors: KERNEL (EMFILE). */
export function makePipe(nonBlocking = false): [reader: number, writer: number] {
  using pair = new NativeBlock(8);
  settle(
    libc().pipe2(pair.address, O_CLOEXEC | (nonBlocking ? O_NONBLOCK : 0)),
    'pipe2',
    'cannot make a pipe',
  );
  return [pair.words[0]!, pair.words[1]!];
}

/** Closes a descriptor; throws what close(2) says (EBADF: it was not open). */
export function closeDescriptor(fd: number): void {
  check(raw.close(fd), 'close', `cannot close descriptor ${fd}`);
}

/** The id of this thread in the kernel, as a userfaultfd with THREAD_ID reports it. */
export const threadId = (): number => raw.syscall('gettid');
