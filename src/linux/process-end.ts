import { writeSync } from 'node:fs';
import { inspect } from 'node:util';
import { isMainThread } from 'node:worker_threads';
import { libc } from './ffi.js';

/**
 * What becomes of blocked accessors when the process ends with an attachment open.
 *
 * Node ends its worker threads one by one and waits for each; a thread blocked in a page fault does not
 * end, and with the resolver gone nobody will wake it. Closing the userfaultfd would wake it with a page of
 * zeros, on which a guest may still act. So the process ends at once, with `_exit`, after every other
 * `exit` listener has run: the kernel ends blocked threads in place and nobody reads anything.
 */
const open = new Set<object>();
let uncaught: unknown;
let listening = false;

/**
 * Notes an open attachment over memory that a userfaultfd guards; the answer forgets it. While one is noted,
 * the process ends by `_exit`. Of an attachment made in a worker nothing is noted: a worker's end is not the
 * process's. Blocks: never. Source: _exit(2), userfaultfd(2).
 */
export function endWith(attachment: object): () => void {
  if (!isMainThread) return () => {};
  open.add(attachment);
  listen(true);
  return () => {
    open.delete(attachment);
    if (open.size === 0) listen(false);
  };
}

function listen(on: boolean): void {
  if (on === listening) return;
  listening = on;
  const change = on ? 'on' : 'off';
  process[change]('exit', endNow);
  process[change]('uncaughtExceptionMonitor', noteUncaught);
}

function noteUncaught(error: unknown): void {
  uncaught = error;
}

function endNow(code: number): void {
  const listeners = process.rawListeners('exit');
  for (const listener of listeners.slice(listeners.indexOf(endNow) + 1)) {
    try {
      Reflect.apply(listener, process, [code]);
    } catch (error) {
      uncaught ??= error;
    }
  }
  // Node prints a fatal error after this event.
  if (uncaught !== undefined) writeSync(2, `${inspect(uncaught)}\n`);
  libc()._exit(Number(process.exitCode ?? code));
}
