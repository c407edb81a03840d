import { createRequire } from 'node:module';
import { promisify } from 'node:util';
import type * as Koffi from 'koffi';
import { DemandPagingError } from '../api/error.js';

/**
 * The one place where native code is loaded. Nothing is loaded by importing this file: the first
 * call of {@link libc} does it, once per isolate (main thread or worker).
 *
 * Addresses, lengths and ioctl arguments cross as plain numbers. That is exact: user space ends
 * below 2^52 on arm64 (LVA) and below 2^47 (or 2^56 only by an explicit mmap hint, which this
 * library never gives) on x86-64, so a JS number holds every address that mmap can return here.
 * A bigint argument costs about 10 to 20 ns more per call and an allocation; a `uintptr_t`
 * declaration spares koffi's pointer encoding.
 */
export interface Libc {
  /** errno of this thread, as the last failed call left it. Ask at once: any other call may change it. */
  errno(): number;
  /** An ArrayBuffer over `length` bytes of native memory at `address`, at most 4 GiB; it frees nothing. */
  view(address: number, length: number): ArrayBuffer;
  /**
   * Where the bytes lie. Of memory outside the collector's heap only: a SharedArrayBuffer, a view of native
   * memory.
   */
  addressOf(bytes: Uint8Array): number;

  _exit(status: number): never;
  accept4(fd: number, address: number, length: number, flags: number): number;
  bind(fd: number, address: number, length: number): number;
  calloc(count: number, size: number): number;
  close(fd: number): number;
  connect(fd: number, address: number, length: number): number;
  /** The address of a C function of this process, by name; 0 for none. `handle` is 0: search everywhere. */
  dlsym(handle: number, name: string): number;
  dup3(from: number, to: number, flags: number): number;
  eventfd(initial: number, flags: number): number;
  fallocate(fd: number, mode: number, offset: number, length: number): number;
  fcntl(fd: number, command: number, argument: number): number;
  free(address: number): void;
  ftruncate(fd: number, length: number): number;
  getpid(): number;
  getsockopt(fd: number, level: number, name: number, value: number, length: number): number;
  ioctl(fd: number, request: number, argument: number): number;
  listen(fd: number, backlog: number): number;
  lseek(fd: number, offset: number, whence: number): number;
  madvise(address: number, length: number, advice: number): number;
  memcpy(to: number, from: number, length: number): void;
  memfd_create(name: string, flags: number): number;
  memset(address: number, value: number, length: number): void;
  mincore(address: number, length: number, vector: number): number;
  mmap(
    address: number,
    length: number,
    protection: number,
    flags: number,
    fd: number,
    offset: number,
  ): number;
  /** madvise(2) on a thread of libuv's pool. Its errno is unavailable. */
  madviseAsync(...advice: Parameters<Libc['madvise']>): Promise<number>;
  /** mmap(2) on a thread of libuv's pool. Its errno is unavailable. */
  mmapAsync(...mapping: Parameters<Libc['mmap']>): Promise<number>;
  mprotect(address: number, length: number, protection: number): number;
  mremap(address: number, oldLength: number, newLength: number, flags: number, newAddress: number): number;
  munmap(address: number, length: number): number;
  open(path: string, flags: number, mode: number): number;
  pipe2(fds: number, flags: number): number;
  poll(fds: number, count: number, timeout: number): number;
  pread(fd: number, address: number, length: number, offset: number): number;
  pthread_create(thread: number, attributes: number, start: number, argument: number): number;
  pthread_join(thread: number, result: number): number;
  process_vm_readv(
    pid: number,
    local: number,
    locals: number,
    remote: number,
    remotes: number,
    flags: number,
  ): number;
  process_vm_writev(
    pid: number,
    local: number,
    locals: number,
    remote: number,
    remotes: number,
    flags: number,
  ): number;
  pwrite(fd: number, address: number, length: number, offset: number): number;
  read(fd: number, address: number, length: number): number;
  recvmsg(fd: number, message: number, flags: number): number;
  sched_getaffinity(thread: number, length: number, mask: number): number;
  /** Of a semaphore of zeros, which counts 0 and is this process's. */
  sem_post(semaphore: number): number;
  sendmsg(fd: number, message: number, flags: number): number;
  sigaction(signal: number, action: number, previous: number): number;
  socket(domain: number, type: number, protocol: number): number;
  socketpair(domain: number, type: number, protocol: number, fds: number): number;
  syscall(number: number, a: number, b: number, c: number, d: number, e: number, f: number): number;
  sysconf(name: number): number;
  write(fd: number, address: number, length: number): number;
}

type Native = Exclude<keyof Libc, 'addressOf' | 'errno' | 'madviseAsync' | 'mmapAsync' | 'view'>;
type Signature = readonly [result: string, ...parameters: string[]];

const INT = 'int';
const LONG = 'int64_t'; // ssize_t, off_t, long; a failed mmap comes back as -1, not as 2^64 - 1
const SIZE = 'uint64_t';
const PTR = 'uintptr_t';

/** Each libc function once. ioctl, fcntl, open and syscall are variadic in C: on both Linux ABIs that
 * passes integer arguments exactly as a fixed prototype does. */
const SIGNATURES: Readonly<Record<Native, Signature>> = {
  _exit: ['void', INT],
  accept4: [INT, INT, PTR, PTR, INT],
  bind: [INT, INT, PTR, 'uint32_t'],
  calloc: [PTR, SIZE, SIZE],
  close: [INT, INT],
  connect: [INT, INT, PTR, 'uint32_t'],
  dlsym: [PTR, PTR, 'str'],
  dup3: [INT, INT, INT, INT],
  eventfd: [INT, 'uint32_t', INT],
  fallocate: [INT, INT, INT, LONG, LONG],
  fcntl: [INT, INT, INT, LONG],
  free: ['void', PTR],
  ftruncate: [INT, INT, LONG],
  getpid: [INT],
  getsockopt: [INT, INT, INT, INT, PTR, PTR],
  ioctl: [INT, INT, SIZE, PTR],
  listen: [INT, INT, INT],
  lseek: [LONG, INT, LONG, INT],
  madvise: [INT, PTR, SIZE, INT],
  memcpy: ['void', PTR, PTR, SIZE],
  memfd_create: [INT, 'str', 'uint32_t'],
  memset: ['void', PTR, INT, SIZE],
  mincore: [INT, PTR, SIZE, PTR],
  mmap: [LONG, PTR, SIZE, INT, INT, INT, LONG],
  mprotect: [INT, PTR, SIZE, INT],
  mremap: [LONG, PTR, SIZE, SIZE, INT, PTR],
  munmap: [INT, PTR, SIZE],
  open: [INT, 'str', INT, 'uint32_t'],
  pipe2: [INT, PTR, INT],
  poll: [INT, PTR, SIZE, INT],
  pread: [LONG, INT, PTR, SIZE, LONG],
  process_vm_readv: [LONG, INT, PTR, SIZE, PTR, SIZE, SIZE],
  process_vm_writev: [LONG, INT, PTR, SIZE, PTR, SIZE, SIZE],
  pthread_create: [INT, PTR, PTR, PTR, PTR],
  pthread_join: [INT, PTR, PTR],
  pwrite: [LONG, INT, PTR, SIZE, LONG],
  read: [LONG, INT, PTR, SIZE],
  recvmsg: [LONG, INT, PTR, INT],
  sched_getaffinity: [INT, INT, SIZE, PTR],
  sem_post: [INT, PTR],
  sendmsg: [LONG, INT, PTR, INT],
  sigaction: [INT, INT, PTR, PTR],
  socket: [INT, INT, INT, INT],
  socketpair: [INT, INT, INT, INT, PTR],
  syscall: [LONG, LONG, LONG, LONG, LONG, LONG, LONG, LONG],
  sysconf: [LONG, INT],
  write: [LONG, INT, PTR, SIZE],
};

const ARCHITECTURES: readonly string[] = ['x64', 'arm64'];

function unavailable(reason: string, cause?: unknown): DemandPagingError {
  return new DemandPagingError(
    'NATIVE_UNAVAILABLE',
    `no native calls on ${process.platform}/${process.arch}: ${reason}`,
    {
      hint: 'This needs Linux on x64 or arm64 and the optional package of koffi for it (reinstall without --omit=optional)',
      cause,
    },
  );
}

function load(): Libc {
  if (process.platform !== 'linux' || !ARCHITECTURES.includes(process.arch)) {
    throw unavailable('only linux/x64 and linux/arm64 are supported');
  }
  let koffi: typeof Koffi;
  try {
    koffi = createRequire(import.meta.url)('koffi') as typeof Koffi;
  } catch (cause) {
    throw unavailable('koffi does not load', cause);
  }
  const process_ = koffi.load(null); // the C library that Node itself runs on
  const declared: Record<string, unknown> = {
    errno: () => koffi.errno(),
    addressOf: (bytes: Uint8Array) => Number(koffi.address(bytes)),
    view: (address: number, length: number) => koffi.view(address, length),
  };
  for (const [name, [result, ...parameters]] of Object.entries(SIGNATURES)) {
    try {
      declared[name] = process_.func(name, result, parameters);
    } catch (cause) {
      declared[name] = () => {
        throw unavailable(`the C library lacks ${name}`, cause); // thrown only to callers that need it
      };
    }
  }
  const { madvise, mmap } = declared as Record<string, Koffi.KoffiFunc<(...args: number[]) => number>>;
  declared['madviseAsync'] = promisify(madvise!.async);
  declared['mmapAsync'] = promisify(mmap!.async);
  return declared as unknown as Libc;
}

let loaded: Libc | undefined;

/**
 * The C library of this process.
 * Blocks: the first call of an isolate loads a shared object, later calls do nothing.
 * Errors: NATIVE_UNAVAILABLE naming platform and architecture.
 */
export function libc(): Libc {
  return (loaded ??= load());
}

/** System call numbers that the C library has no wrapper for, or only a recent one has. */
const NUMBERS = {
  x64: {
    userfaultfd: 323,
    pidfd_send_signal: 424,
    pidfd_open: 434,
    pidfd_getfd: 438,
    futex: 202,
    gettid: 186,
    tgkill: 234,
  },
  arm64: {
    userfaultfd: 282,
    pidfd_send_signal: 424,
    pidfd_open: 434,
    pidfd_getfd: 438,
    futex: 98,
    gettid: 178,
    tgkill: 131,
  },
} as const;

export type SyscallName = keyof (typeof NUMBERS)['x64'];

/** The number of a system call on this architecture. Errors: NATIVE_UNAVAILABLE elsewhere. */
export function syscallNumber(name: SyscallName, arch: string = process.arch): number {
  if (arch !== 'x64' && arch !== 'arm64') throw unavailable(`no system call numbers for ${arch}`);
  return NUMBERS[arch][name];
}
