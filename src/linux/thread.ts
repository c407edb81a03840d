import { type Requirement, refused } from '../api/capability.js';
import { noThread } from '../api/package-entry.js';
import { libc } from './ffi.js';
import { makePipe } from './descriptor.js';
import { ERRNO, systemError } from './failure.js';
import { load64, NativeBlock } from './native-block.js';
import * as raw from './raw.js';

const SEMAPHORE_BYTES = 32;

/**
 * Tests whether this process may have `count` threads more: creates them, each waits for a semaphore until all are
 * there, and joins them; then as many descriptors as a Node thread needs. Blocks: briefly. Errors: KERNEL naming
 * clone (EAGAIN) or pipe2 (EMFILE), NO_PERMISSION naming sched_getaffinity (EPERM). Source: pthread_create(3).
 */
function tryThreads(count: number): void {
  const { dlsym, pthread_create, pthread_join, sem_post } = libc();
  using semaphore = new NativeBlock(SEMAPHORE_BYTES);
  using threads = new NativeBlock(count * 8);
  let created = 0;
  let errno = 0;
  while (created < count && errno === 0) {
    errno = pthread_create(threads.address + created * 8, 0, dlsym(0, 'sem_wait'), semaphore.address);
    if (errno === 0) created++;
  }
  for (let thread = 0; thread < created; thread++) sem_post(semaphore.address);
  for (let thread = 0; thread < created; thread++) pthread_join(load64(threads.words, thread * 2), 0);
  if (errno !== 0) throw noThread('this process can have no further thread', errno);
  tryStackLookup();
  tryDescriptors();
}

const MASK_BYTES = 1024; // of 8192 processors

/**
 * Node asks the C library where the stack of each of its threads lies, and the C library asks the kernel for the
 * thread's processors with it. Where the kernel refuses that, Node takes the main thread's stack for the thread's,
 * and a collection of garbage in that thread ends the process by SIGSEGV. ENOSYS does no harm: the C library goes on
 * without. Source: pthread_getattr_np(3).
 */
function tryStackLookup(): void {
  using mask = new NativeBlock(MASK_BYTES);
  if (libc().sched_getaffinity(0, MASK_BYTES, mask.address) !== -1) return;
  const errno = libc().errno();
  if (errno === ERRNO.ENOSYS || errno === ERRNO.EINVAL) return;
  throw systemError('sched_getaffinity', errno, 'Node.js cannot tell where the stack of a thread lies');
}

/**
 * Pipes whose ends are as many descriptors as the event loop of a thread of Node's has open, and what it
 * opens first.
 */
const PIPES = 8;

/**
 * Node leaks descriptors when the creation of an event loop fails half-way; testing first prevents that.
 */
function tryDescriptors(): void {
  const open: number[] = [];
  try {
    for (let pipe = 0; pipe < PIPES; pipe++) open.push(...makePipe());
  } finally {
    for (const fd of open) raw.close(fd);
  }
}

/** A thread, as every resolver needs one, or `count` at once. Never throws. */
export function aThread(count = 1): Requirement {
  const what = count === 1 ? 'a thread' : `${count} threads`;
  try {
    tryThreads(count);
    return { what, met: true, found: 'it can be created', remedy: '' };
  } catch (error) {
    return refused(what, error);
  }
}
