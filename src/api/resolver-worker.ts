import { type RecordableHistogram } from 'node:perf_hooks';
import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { type PageRange } from './address.js';
import { type FaultPort, type OpenPort, type PortPlace } from './backend.js';
import { type Supports } from './capability.js';
import { asDemandPagingError } from './error.js';
import { MemoryLayout, type RegionSpec } from './layout.js';
import { NoticeSender, type ResolverMessage } from './notice-sender.js';
import { type Command } from './notice.js';
import { PageStates, type SharedPageStates } from './page-states.js';
import { type PagerPolicy } from './policy.js';
import { Signal, runResolver } from './resolver-loop.js';
import { Resolver } from './resolver.js';
import { type SourceRef, openSource } from './source.js';
import { Counters } from './statistics.js';

/** What the control thread hands to a resolver's worker. */
export interface ResolverWorkerData {
  readonly regions: readonly RegionSpec[];
  readonly pages: PageRange;
  readonly states: SharedPageStates;
  readonly counters: SharedArrayBuffer;
  /** Word 0: commands sent and not yet drained. Word 1: notices the control thread has handled. */
  readonly words: SharedArrayBuffer;
  readonly place: Extract<PortPlace, { where: 'worker' }>;
  readonly supports: Supports;
  readonly source: SourceRef;
  readonly policy: PagerPolicy;
  readonly latency: RecordableHistogram;
  readonly control: MessagePort;
}

export interface CommandMessage {
  readonly id: number;
  readonly command: Command;
}

/**
 * The thread of one resolver. It opens its port and its source by module, since neither crosses
 * isolates, reports `ready` with the source's length, and turns until told to end.
 */
async function main(data: ResolverWorkerData): Promise<void> {
  const { control, policy } = data;
  const words = new Int32Array(data.words);
  const send = (message: ResolverMessage): void => control.postMessage(message);
  const notices = new NoticeSender(send, words, policy.maxNotices, new Counters(data.counters));
  let resolver: Resolver | undefined;
  let port: FaultPort | undefined;
  try {
    const source = await openSource(data.source);
    port = await openPort(data.place);
    resolver = new Resolver({
      layout: new MemoryLayout(data.regions),
      states: new PageStates(data.states),
      pages: data.pages,
      port,
      supports: data.supports,
      source,
      policy,
      counters: new Counters(data.counters),
      notify: (notice) => notices.notify(notice),
      latency: (elapsed_ns) => data.latency.record(elapsed_ns),
    });
    const signal = new Signal();
    const drain = commandDrain(control, words, resolver, send);
    control.on('message', (message: CommandMessage) => {
      execute(resolver!, message, send);
      signal.set();
    });
    send({ kind: 'ready', sourceLength: source.length });
    await runResolver({ resolver, port, drain, blocking: source.synchronous ? policy.wait : undefined, signal });
    await source.close?.();
  } catch (thrown) {
    const error = asDemandPagingError(thrown, 'HANDLER_DIED', 'the resolver failed');
    try {
      // Last rites: whoever waits is let go loudly before this thread is gone.
      resolver?.abort(error);
      port?.close();
    } finally {
      send({ kind: 'died', error: error.toPlain() });
    }
  } finally {
    control.close();
  }
}

/** The event loop does not run while the resolver blocks in its port: take the messages by hand. */
function commandDrain(control: MessagePort, words: Int32Array, resolver: Resolver, send: (message: ResolverMessage) => void): () => void {
  return () => {
    // Sent first, counted after: a count seen here has its message waiting.
    if (Atomics.exchange(words, 0, 0) === 0) return;
    for (let got = receiveMessageOnPort(control); got; got = receiveMessageOnPort(control)) {
      execute(resolver, got.message as CommandMessage, send);
    }
  };
}

function execute(resolver: Resolver, { id, command }: CommandMessage, send: (message: ResolverMessage) => void): void {
  resolver.execute(command, (reply) => send({ kind: 'reply', id, reply }));
}

async function openPort(place: ResolverWorkerData['place']): Promise<FaultPort> {
  const open = ((await import(place.module)) as Record<string, OpenPort<unknown>>)[place.export];
  if (typeof open !== 'function') throw new TypeError(`${place.module} exports no function '${place.export}'`);
  return open(place.token);
}

void main(workerData as ResolverWorkerData);
