import { type Requirement, refused } from '../api/capability.js';
import { noThread } from '../api/package-entry.js';
import { libc } from './ffi.js';
import { makePipe } from './descriptor.js';
import { load64, NativeBlock } from './native-block.js';
import * as raw from './raw.js';

/**
 * Tests whether this process may have another thread: creates one and waits for its end, with as many
 * descriptors as a Node thread needs. The thread runs a function of the C library without effect. Blocks:
 * briefly. Errors: KERNEL naming clone (EAGAIN) or pipe2 (EMFILE). Source: pthread_create(3).
 */
function tryThread(): void {
  using thread = new NativeBlock(8);
  const errno = libc().pthread_create(thread.address, 0, libc().dlsym(0, 'getpid'), 0);
  if (errno !== 0) throw noThread('this process can have no further thread', errno);
  libc().pthread_join(load64(thread.words, 0), 0);
  tryDescriptors();
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

/** A thread, as every resolver needs one. Never throws. */
export function aThread(): Requirement {
  const what = 'a thread';
  try {
    tryThread();
    return { what, met: true, found: 'it can be created', remedy: '' };
  } catch (error) {
    return refused(what, error);
  }
}
