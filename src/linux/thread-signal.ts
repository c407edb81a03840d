import { check, ERRNO } from './failure.js';
import { libc } from './ffi.js';
import { NativeBlock, store64 } from './native-block.js';
import * as raw from './raw.js';

/**
 * A real-time signal that neither Node nor glibc uses: its only effect is that a blocking system call of
 * the thread it is sent to returns with EINTR.
 */
const KICK_SIGNAL = 44;
/** `struct sigaction` of the C library: handler, 128 bytes of mask, flags, restorer; 64-bit Linux. */
export const SIGACTION_BYTES = 152;

let installed = false;

/**
 * Gives the kick signal a handler, once a process: a function of the C library that does nothing of
 * note, because no code of this runtime may run inside a signal. Without SA_RESTART, so that the call
 * that is interrupted returns. Blocks: never. Errors: KERNEL. Source: sigaction(2).
 */
export function installKickSignal(): void {
  if (installed) return;
  using action = new NativeBlock(SIGACTION_BYTES);
  store64(action.words, 0, libc().dlsym(0, 'getpid'));
  const result = libc().sigaction(KICK_SIGNAL, action.address, 0);
  check(result === -1 ? -libc().errno() : result, 'sigaction', 'cannot install the kick signal');
  installed = true;
}

/**
 * Interrupts a thread of this process, by its kernel id. False: there is no such thread any more.
 * Precondition: {@link installKickSignal}; without it the signal ends the process. Source: tgkill(2).
 */
export function kickThread(thread: number): boolean {
  const result = raw.syscall('tgkill', process.pid, thread, KICK_SIGNAL);
  if (result === -ERRNO.ESRCH) return false;
  // As many signals wait for this user's threads as may (RLIMIT_SIGPENDING): lost, as a kick can be.
  if (result === -ERRNO.EAGAIN) return true;
  check(result, 'tgkill', `cannot interrupt thread ${thread}`);
  return true;
}

/** Whether a thread of this process is there, by its kernel id. Source: tgkill(2). */
export function threadLives(thread: number): boolean {
  const result = raw.syscall('tgkill', process.pid, thread, 0);
  if (result === -ERRNO.ESRCH) return false;
  check(result, 'tgkill', `cannot look for thread ${thread}`);
  return true;
}
