import { writeSync } from 'node:fs';
import { inspect } from 'node:util';
import { isMainThread } from 'node:worker_threads';

/**
 * Something that is open, and what is to be done when its process, or its worker thread, ends before it is
 * closed.
 */
export interface OpenAtEnd {
  /** Done before any {@link cleanUp}: threads may meet poison from then on. */
  prepare?(): void;
  /** Lets every access that waits fail loudly. Synchronous: no event loop turns any more. */
  cleanUp?(): void;
  /** Ends the process at once, because ending its threads one by one would not end. */
  readonly exit?: ((status: number) => never) | undefined;
}

/** How a process ends at once, whatever its threads do. */
export interface ImmediateExit {
  prepare(): void;
  exit(status: number): never;
}

let immediate: ImmediateExit | undefined;

/** Named by the part of this library that makes system calls, once it is loaded. */
export function provideImmediateExit(given: ImmediateExit): void {
  immediate = given;
}

export const immediateExit = (): ImmediateExit | undefined => immediate;

/** Signals by which a user, a terminal or a supervisor ends a program, and which a program can handle. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const;
/** Worker threads hear of none, and the first process of a container has no default action to die of. */
const HANDLED = isMainThread && process.pid !== 1 ? SIGNALS : [];

const open = new Set<OpenAtEnd>();
let listening = false;
let uncaught: unknown;

/** What may note something still, when the end has begun. */
let ending: () => void = () => {};

/** Calls `hear` at the process's end before anything else is done about it, from now on. */
export function whenProcessIsEnding(hear: () => void): void {
  ending = hear;
  process.on('exit', atEarlyExit);
}

function atEarlyExit(code: number): void {
  const wasListening = listening;
  ending();
  if (!wasListening && listening) end(code, atEarlyExit); // noted too late to be called for this end
}

/** What `process.exit` calls in the end: an undocumented method that packages have long relied upon. */
const process_ = process as unknown as { reallyExit: (status?: number) => never };
let reallyExit: (typeof process_)['reallyExit'] | undefined;

/**
 * Registers what must be done before the process ends; the returned function unregisters it. While anything
 * is registered:
 *
 * - `process.exit` anywhere on this thread, an uncaught error, an unhandled rejection and an event loop
 *   without work come by the `exit` event: every other listener runs first, because it may still need memory,
 *   then the cleanup.
 * - SIGINT, SIGTERM, SIGHUP and SIGQUIT, where the program has no handler of its own: the cleanup, then the
 *   signal again, so that the process dies of it as it would have. A program that handles the signal decides;
 *   what it then does comes by one of the ways above. A handler runs when the event loop of the main thread
 *   turns: while that is blocked, the signal waits.
 * - In a worker thread the end of that thread counts, as far as its JavaScript can see it: not `terminate()`.
 *
 * Never by SIGKILL, an abort (a heap that is exhausted on this thread), or a fault of native code: nothing
 * runs then.
 */
export function whenProcessEnds(part: OpenAtEnd): () => void {
  open.add(part);
  listen(true);
  return () => {
    open.delete(part);
    if (open.size === 0) listen(false);
  };
}

function listen(on: boolean): void {
  if (on === listening) return;
  listening = on;
  const change = on ? 'on' : 'off';
  process[change]('exit', atExit);
  process[change]('uncaughtExceptionMonitor', noteUncaught);
  if (on) {
    // A listener of `exit` that calls process.exit() comes here at once: no further listener runs.
    reallyExit = process_.reallyExit;
    process_.reallyExit = exitReally;
  } else if (process_.reallyExit === exitReally) process_.reallyExit = reallyExit!;
  for (const name of HANDLED) process[change](name, atSignal);
}

function noteUncaught(error: unknown): void {
  uncaught = error;
}

function atExit(code: number): void {
  end(code, atExit);
}

/** Ends the process from one of its listeners: those that come after it run before. */
function end(code: number, from: (code: number) => void): void {
  const exit = exitOfParts();
  if (!exit) return cleanUp();
  const listeners = process.rawListeners('exit');
  for (const listener of listeners.slice(listeners.indexOf(from) + 1)) {
    if (listener === atExit) continue;
    try {
      Reflect.apply(listener, process, [code]);
    } catch (error) {
      uncaught ??= error;
    }
  }
  cleanUp();
  exit(Number(process.exitCode ?? code));
}

function exitReally(status?: number): never {
  ending();
  const exit = exitOfParts();
  cleanUp();
  if (exit) exit(Number(status ?? process.exitCode ?? 0));
  return reallyExit!.call(process, status);
}

function exitOfParts(): ((status: number) => never) | undefined {
  const part = [...open].find(({ exit }) => exit !== undefined);
  if (!part) return undefined;
  return (status) => {
    // Node prints a fatal error after its `exit` event.
    if (uncaught !== undefined) writeSync(2, `${inspect(uncaught)}\n`);
    return part.exit!(status);
  };
}

function atSignal(signal: NodeJS.Signals): void {
  if (isDecidedElsewhere(signal)) return;
  ending();
  cleanUp();
  for (const name of HANDLED) process.off(name, atSignal);
  process.kill(process.pid, signal); // of the default action now: it ends the process before it returns
}

/**
 * Whether the program has a handler of its own. One of the package `signal-exit` is none: it raises the
 * signal again where it finds no handler besides its own, as this one does, and the two would leave it to
 * each other.
 */
function isDecidedElsewhere(signal: NodeJS.Signals): boolean {
  const emitters = [
    (globalThis as Record<symbol, unknown>)[Symbol.for('signal-exit emitter')],
    (process as unknown as Record<string, unknown>)['__signal_exit_emitter__'],
  ] as readonly ({ readonly count?: number } | undefined)[];
  const polite = emitters.reduce((sum, emitter) => sum + (emitter?.count ?? 0), 0);
  return process.listenerCount(signal) > 1 + polite;
}

function cleanUp(): void {
  const parts = [...open];
  open.clear(); // what ends twice (an exit inside a signal handler) is cleaned up once
  for (const step of ['prepare', 'cleanUp'] as const) {
    for (const part of parts) {
      try {
        part[step]?.();
      } catch (error) {
        writeSync(2, `accesses that wait for missing pages could not be let go: ${inspect(error)}\n`);
      }
    }
  }
}
