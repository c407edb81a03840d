import { isMainThread } from 'node:worker_threads';
import { provideImmediateExit, whenProcessEnds } from '../api/process-end.js';
import { check } from './failure.js';
import { libc } from './ffi.js';
import { NativeBlock, store64 } from './native-block.js';
import { SIGACTION_BYTES } from './thread-signal.js';

const SIGBUS = 7;

/**
 * Notes an open attachment over memory of this process that a userfaultfd guards; the answer forgets it.
 * While one is noted, the process ends by `_exit`, when every listener has run and waiting accesses have been
 * let go.
 *
 * Node ends its worker threads one by one and waits for each; a thread blocked in a page fault does not
 * end, and with the resolver gone nothing will wake it. The kernel ends threads where they are.
 *
 * Of an attachment made in a worker nothing is noted: a worker's end is not the
 * process's, and the main thread is told of its pager. Blocks: never. Source: _exit(2), userfaultfd(2).
 */
export function endWith(): () => void {
  if (!isMainThread) return () => {};
  return whenProcessEnds({ ...IMMEDIATE_EXIT }); // one each
}

/**
 * A thread of this process that touches poison from now on stays there until the process has ended: SIGBUS
 * would end it first, with another status than it is about to have. No code of this runtime may run inside a
 * signal: pause(2) is its handler.
 */
function holdTouchers(): void {
  using action = new NativeBlock(SIGACTION_BYTES);
  store64(action.words, 0, libc().dlsym(0, 'pause'));
  const result = libc().sigaction(SIGBUS, action.address, 0);
  check(result === -1 ? -libc().errno() : result, 'sigaction', 'cannot hold threads that meet poison');
}

const IMMEDIATE_EXIT = { prepare: holdTouchers, exit: (status: number): never => libc()._exit(status) };
provideImmediateExit(IMMEDIATE_EXIT);
