import { type MessagePort, parentPort, receiveMessageOnPort } from 'node:worker_threads';
import { type FaultPort, importPort, openPortNow } from './backend.js';
import { asDemandPagingError } from './error.js';
import { InstallLock } from './install-lock.js';
import { MemoryLayout } from './layout.js';
import { EventSender, type ResolverMessage } from './event-sender.js';
import { PageStates } from './page-states.js';
import { Signal, runResolver } from './resolver-loop.js';
import {
  type CommandMessage,
  OPENING,
  type ResolverWorkerData,
  type ResolverWorkerPort,
  WORD,
} from './resolver-thread.js';
import { Resolver } from './resolver.js';
import { type PageSource, called, checkCovers, openSource } from './source.js';
import { Counters } from './statistics.js';

/**
 * Runs one resolver on this thread. It opens its port and its source by module, since neither crosses
 * isolates, reports `ready` with the source's length, and turns until the `end` command: asleep in its port,
 * if the thread is its own and its source is synchronous, else on the event loop, which it shares with
 * others.
 */
async function run({ control }: ResolverWorkerPort): Promise<void> {
  const data = receiveMessageOnPort(control)!.message as ResolverWorkerData;
  const { policy, ownThread } = data;
  const words = new Int32Array(data.words);
  const lock = new InstallLock(words, WORD.installing);
  const send = (message: ResolverMessage): void => control.postMessage(message);
  const events = new EventSender(send, words, policy.maxEvents, new Counters(data.counters));
  let resolver: Resolver | undefined;
  let port: FaultPort | undefined;
  let source: PageSource | undefined;
  try {
    source = await openSource(data.source, () => passage(words));
    if (!ownThread && source.synchronous && !data.anySource) {
      await closed(source, words);
      return send({ kind: 'misplaced' });
    }
    const blocks = ownThread && source.synchronous;
    const layout = new MemoryLayout(data.layout);
    checkCovers(source.length, layout.regions);
    await importPort(data.place);
    if (Atomics.compareExchange(words, WORD.opening, OPENING.inProgress, OPENING.through) === OPENING.givenUp)
      return await closed(source, words);
    port = openPortNow(data.place);
    resolver = new Resolver({
      layout,
      states: new PageStates(data.states),
      pages: data.pages,
      port,
      supports: data.supports,
      source,
      policy,
      counters: new Counters(data.counters),
      notify: (event) => events.notify(event),
      latency: (elapsed_ns) => data.latency.record(elapsed_ns),
      reading: () => passage(words),
      installing: (on) => (on ? lock.enter() : lock.leave()),
      settled: () => Atomics.store(words, WORD.settled, 1),
      ...(!blocks && { taking: (on: boolean) => void Atomics.store(words, WORD.taking, on ? 1 : 0) }),
    });
    const signal = new Signal();
    const drain = commandDrain(control, words, resolver, send);
    control.on('message', (message: CommandMessage) => {
      execute(resolver!, message, send);
      signal.set();
    });
    send({ kind: 'ready', sourceLength: source.length, synchronous: source.synchronous });
    if (data.goesOn) resolver.goOn();
    await runResolver({
      resolver,
      port,
      drain,
      blocking: blocks ? policy.wait : undefined,
      signal,
    });
    await closed(source, words);
    send({ kind: 'ended' });
  } catch (thrown) {
    const error = asDemandPagingError(thrown, 'HANDLER_DIED', 'the resolver failed');
    try {
      // Crash cleanup: whatever waits is let go loudly before this resolver is gone.
      resolver?.abort(error);
    } finally {
      port?.close();
      try {
        if (source) await closed(source, words);
      } finally {
        send({ kind: 'died', error: error.toPlain() });
      }
    }
  } finally {
    control.unref(); // not closed: what was sent last must still arrive
  }
}

/** Closes a source, whose `close` may never come back. */
const closed = async (source: PageSource, words: Int32Array): Promise<void> =>
  called(
    () => source.close?.(),
    () => passage(words),
  );

/**
 * Called before and after a call of the source's. A thread that comes back when it is about to be ended waits
 * for that here, so that it is ended in no other place: not between taking messages and applying their
 * events, for any resolver on it.
 */
function passage(words: Int32Array): void {
  const isInside = Atomics.add(words, WORD.reading, 1) % 2 === 0;
  while (!isInside && Atomics.load(words, WORD.condemned) === 1) Atomics.wait(words, WORD.condemned, 1);
}

/** The event loop does not run while the resolver blocks in its port: take the messages by hand. */
function commandDrain(
  control: MessagePort,
  words: Int32Array,
  resolver: Resolver,
  send: (message: ResolverMessage) => void,
): () => void {
  return () => {
    if (Atomics.load(words, WORD.commands) === 0) return; // half the cost of an exchange, at every fault
    // Sent first, counted after: a count seen here has its message waiting.
    Atomics.store(words, WORD.commands, 0);
    for (let got = receiveMessageOnPort(control); got; got = receiveMessageOnPort(control)) {
      execute(resolver, got.message as CommandMessage, send);
    }
  };
}

function execute(
  resolver: Resolver,
  { id, command }: CommandMessage,
  send: (message: ResolverMessage) => void,
): void {
  resolver.execute(command, (reply) => send({ kind: 'reply', id, reply }));
}

// It keeps the thread, which the control side ends when its last resolver has left.
parentPort!.on('message', (port: ResolverWorkerPort) => void run(port));
