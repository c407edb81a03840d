import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { type FaultPort, openPort } from './backend.js';
import { asDemandPagingError } from './error.js';
import { InstallLock } from './install-lock.js';
import { KeepAlive } from './keep-alive.js';
import { MemoryLayout } from './layout.js';
import { NoticeSender, type ResolverMessage } from './notice-sender.js';
import { PageStates } from './page-states.js';
import { Signal, runResolver } from './resolver-loop.js';
import {
  type CommandMessage,
  type ResolverWorkerData,
  type ResolverWorkerPort,
  WORD,
} from './resolver-thread.js';
import { Resolver } from './resolver.js';
import { type PageSource, checkCovers, openSource } from './source.js';
import { Counters } from './statistics.js';

/**
 * The thread of one resolver. It opens its port and its source by module, since neither crosses
 * isolates, reports `ready`, and turns until told to end.
 */
async function main({ control }: ResolverWorkerPort): Promise<void> {
  const data = receiveMessageOnPort(control)!.message as ResolverWorkerData;
  const { policy } = data;
  const words = new Int32Array(data.words);
  const lock = new InstallLock(words, WORD.installing);
  const send = (message: ResolverMessage): void => control.postMessage(message);
  const notices = new NoticeSender(send, words, policy.maxNotices, new Counters(data.counters));
  let resolver: Resolver | undefined;
  let port: FaultPort | undefined;
  let source: PageSource | undefined;
  try {
    // What is awaited there may be nothing that keeps this thread's event loop going; the control thread has a time-out.
    const alive = new KeepAlive();
    source = await openSource(data.source).finally(() => alive.end());
    const layout = new MemoryLayout(data.layout);
    checkCovers(source.length, layout.regions);
    port = await openPort(data.place);
    resolver = new Resolver({
      layout,
      states: new PageStates(data.states),
      pages: data.pages,
      port,
      supports: data.supports,
      source,
      policy,
      counters: new Counters(data.counters),
      notify: (notice) => notices.notify(notice),
      latency: (elapsed_ns) => data.latency.record(elapsed_ns),
      reading: () => void Atomics.add(words, WORD.reading, 1),
      installing: (on) => (on ? lock.enter() : lock.leave()),
      settled: () => Atomics.store(words, WORD.settled, 1),
    });
    const signal = new Signal();
    const drain = commandDrain(control, words, resolver, send);
    control.on('message', (message: CommandMessage) => {
      execute(resolver!, message, send);
      signal.set();
    });
    send({ kind: 'ready', sourceLength: source.length });
    await runResolver({
      resolver,
      port,
      drain,
      blocking: source.synchronous ? policy.wait : undefined,
      signal,
    });
    await source.close?.();
    send({ kind: 'ended' });
  } catch (thrown) {
    const error = asDemandPagingError(thrown, 'HANDLER_DIED', 'the resolver failed');
    try {
      // Crash cleanup: whatever waits is let go loudly before this thread is gone.
      resolver?.abort(error);
      port?.close();
      await source?.close?.();
    } finally {
      send({ kind: 'died', error: error.toPlain() });
    }
  } finally {
    control.unref(); // not closed: what was sent last must still arrive
  }
}

/** The event loop does not run while the resolver blocks in its port: take the messages by hand. */
function commandDrain(
  control: MessagePort,
  words: Int32Array,
  resolver: Resolver,
  send: (message: ResolverMessage) => void,
): () => void {
  return () => {
    if (Atomics.load(words, WORD.commands) === 0) return; // between any two faults: half the price of an exchange
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

void main(workerData as ResolverWorkerPort);
