import { type FaultPort } from './backend.js';
import { eventLoopTurn } from './event-loop-turns.js';
import { type Resolver } from './resolver.js';

/** Set once, waited for once, again and again: a wake-up that is not lost when it comes before the wait. */
export class Signal {
  #set = false;
  #waiting: (() => void) | undefined;

  set(): void {
    this.#set = true;
    this.#waiting?.();
  }

  async wait(): Promise<void> {
    if (!this.#set) await new Promise<void>((resolve) => (this.#waiting = resolve));
    this.#waiting = undefined;
    this.#set = false;
  }
}

export interface ResolverLoopOptions {
  readonly resolver: Resolver;
  readonly port: FaultPort;
  /** Carries out commands that have arrived. Called between turns. */
  readonly drain: () => void;
  /**
   * How to wait when the thread may block: with a synchronous source, on a thread of its own. Undefined:
   * never block.
   */
  readonly blocking: 'block' | 'spin' | undefined;
  /** Set when a command has arrived that a non-blocking wait should end for. */
  readonly signal: Signal;
}

/**
 * Turns a resolver until it has ended. Blocking, the thread sleeps in the port between faults and the event
 * loop never runs: commands come by {@link ResolverLoopOptions.drain} after a kick. Otherwise it waits for
 * whichever comes first: the port, an answer of the source, a command, or the next time-out.
 */
export async function runResolver({
  resolver,
  port,
  drain,
  blocking,
  signal,
}: ResolverLoopOptions): Promise<void> {
  if (blocking) {
    while (!resolver.ended) {
      drain();
      resolver.turn(blocking);
    }
    return;
  }
  resolver.onWork = () => signal.set();
  // One ready() is outstanding at a time: it is kept across rounds that something else ended.
  let ready: Promise<void> | undefined;
  let failure: { readonly thrown: unknown } | undefined;
  while (!resolver.ended) {
    drain();
    if (resolver.turn('none') || resolver.busy) {
      await eventLoopTurn(); // answers arrive by the event loop
      continue;
    }
    if (resolver.ended) return;
    ready ??= port.ready().then(
      () => {
        ready = undefined;
        signal.set();
      },
      (thrown: unknown) => {
        failure = { thrown };
        signal.set();
      },
    );
    await untilSignalled(signal, resolver.nextDue_ms - performance.now());
    if (failure) throw failure.thrown;
  }
}

async function untilSignalled(signal: Signal, timeout_ms: number): Promise<void> {
  if (timeout_ms === Infinity) return signal.wait();
  const timer = setTimeout(() => signal.set(), Math.max(0, timeout_ms));
  await signal.wait();
  clearTimeout(timer);
}
