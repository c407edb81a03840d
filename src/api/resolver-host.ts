import { createRequire } from 'node:module';
import { type RecordableHistogram } from 'node:perf_hooks';
import { MessageChannel, Worker } from 'node:worker_threads';
import { type Shard, openPort } from './backend.js';
import { type Supports } from './capability.js';
import { DemandPagingError } from './error.js';
import { type MemoryLayout } from './layout.js';
import { type ResolverMessage } from './notice-sender.js';
import { type Command, type CommandReply, type Notice } from './notice.js';
import { type PageStates } from './page-states.js';
import { type PagerPolicy } from './policy.js';
import { Signal, runResolver } from './resolver-loop.js';
import { type CommandMessage, type ResolverWorkerData, WORD } from './resolver-thread.js';
import { Resolver } from './resolver.js';
import { type SourceRef, isModuleSource, isPortSource, openSource } from './source.js';
import { Counters } from './statistics.js';

/** What every kind of host is made of. */
export interface HostOptions {
  readonly layout: MemoryLayout;
  readonly states: PageStates;
  readonly shard: Shard;
  readonly supports: Supports;
  readonly source: SourceRef;
  readonly policy: PagerPolicy;
  readonly latency: RecordableHistogram;
  notify(notice: Notice): void;
  /** The resolver ended without being told to. What waits has been seen to, as far as that was possible. */
  died(error: DemandPagingError): void;
}

/** Where a resolver runs, as the pager sees it. */
export interface ResolverHost {
  readonly shard: Shard;
  readonly counters: Counters;
  /** Bytes the source has. */
  readonly sourceLength: number;
  /** Sends a command. Rejects with its error, or HANDLER_DIED if the resolver ends before answering. */
  send(command: Command): Promise<unknown>;
  /** Resolves when the resolver has ended, told to or not. */
  readonly ended: Promise<void>;
}

/** Starts a shard's resolver where its port can be opened. */
export function startHost(options: HostOptions): Promise<ResolverHost> {
  return options.shard.port.where === 'here' ? startHere(options) : startWorker(options);
}

/** A resolver in this isolate, sharing its event loop: for ports that live here. */
async function startHere(options: HostOptions): Promise<ResolverHost> {
  const { shard } = options;
  const source = await openSource(options.source);
  const port = await openPort(shard.port);
  const counters = new Counters();
  const resolver = new Resolver({
    ...options,
    pages: shard.pages,
    port,
    source,
    counters,
    latency: (elapsed_ns) => options.latency.record(elapsed_ns),
  });
  const signal = new Signal();
  const ended = runResolver({ resolver, port, drain: () => {}, blocking: undefined, signal })
    .catch((thrown: unknown) => {
      resolver.abort(thrown);
      options.died(new DemandPagingError('HANDLER_DIED', 'the resolver failed', { cause: thrown }));
    })
    .then(() => source.close?.());
  const send = (command: Command): Promise<unknown> =>
    new Promise((resolve, reject) => {
      resolver.execute(command, (reply) => settle(reply, resolve, reject));
      signal.set();
    });
  return { shard, counters, sourceLength: source.length, send, ended };
}

function settle(
  reply: CommandReply,
  resolve: (value: unknown) => void,
  reject: (error: Error) => void,
): void {
  if (reply.ok) resolve(reply.value);
  else reject(DemandPagingError.fromPlain(reply.error));
}

/** How long a thread that is told to stop, or is stuck, is waited for. */
const TERMINATE_WAIT_MS = 1000;

/** A resolver on a thread of its own. */
async function startWorker(options: HostOptions): Promise<ResolverHost> {
  const host = new WorkerHost(options);
  await host.ready;
  return host;
}

class WorkerHost implements ResolverHost {
  readonly shard: Shard;
  readonly counters = new Counters();
  readonly ready: Promise<void>;
  readonly ended: Promise<void>;
  sourceLength = 0;
  readonly #options: HostOptions;
  readonly #worker: Worker;
  readonly #words = new Int32Array(new SharedArrayBuffer(WORD.length * 4));
  readonly #control;
  readonly #calls = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  readonly #watchdog: NodeJS.Timeout;
  #nextId = 1;
  #told = false;
  #dead: DemandPagingError | undefined;
  #becameReady!: () => void;
  #failedToStart!: (error: Error) => void;

  constructor(options: HostOptions) {
    this.#options = options;
    this.shard = options.shard;
    this.ready = new Promise((resolve, reject) => {
      this.#becameReady = resolve;
      this.#failedToStart = reject;
    });
    const { port1, port2 } = new MessageChannel();
    this.#control = port1;
    port1.on('message', (message: ResolverMessage) => this.#receive(message));
    // Found by the package's own name, so that it is the built file wherever this code was bundled to.
    const entry = createRequire(import.meta.url).resolve('demand-paging/api/resolver-worker');
    this.#worker = new Worker(entry, {
      workerData: this.#workerData(port2),
      transferList: this.#transfers(port2),
      stdout: false,
    });
    this.#worker.unref();
    let cause: unknown;
    this.#worker.on('error', (thrown) => (cause = thrown));
    this.ended = new Promise((resolve) => {
      this.#worker.on('exit', () => {
        const error = new DemandPagingError('HANDLER_DIED', "the resolver's thread ended", { cause });
        void (this.#told || this.#dead ? Promise.resolve() : this.#lastRites(error)).then(() => {
          this.#finish();
          resolve();
        });
      });
    });
    this.#watchdog = this.#watch();
  }

  send(command: Command): Promise<unknown> {
    if (this.#dead) return Promise.reject(this.#dead);
    if (command.command === 'end') {
      this.#told = true;
      this.#worker.ref(); // its end is waited for
    }
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject });
      this.#control.ref();
      this.#control.postMessage({ id, command } satisfies CommandMessage);
      Atomics.add(this.#words, WORD.commands, 1); // after the message: a count that is seen has one
      this.shard.kick();
    });
  }

  #workerData(control: ResolverWorkerData['control']): ResolverWorkerData {
    const { layout, states, supports, source, policy, latency, shard } = this.#options;
    if (shard.port.where !== 'worker') throw new TypeError('the port does not open in a worker');
    return {
      regions: layout.toSpecs(),
      pages: shard.pages,
      states: states.shared,
      counters: this.counters.shared,
      words: this.#words.buffer as SharedArrayBuffer,
      place: shard.port,
      supports,
      source,
      policy,
      latency,
      control,
    };
  }

  #transfers(control: ResolverWorkerData['control']): ResolverWorkerData['control'][] {
    const { source } = this.#options;
    return isPortSource(source) ? [control, source.port] : [control];
  }

  #receive(message: ResolverMessage): void {
    switch (message.kind) {
      case 'ready':
        this.sourceLength = message.sourceLength;
        this.#control.unref(); // an open pager does not keep the process alive; a command under way does
        return this.#becameReady();
      case 'reply': {
        const call = this.#calls.get(message.id);
        this.#calls.delete(message.id);
        if (this.#calls.size === 0) this.#control.unref();
        return call && settle(message.reply, call.resolve, call.reject);
      }
      case 'notice':
        Atomics.add(this.#words, WORD.handled, 1);
        return this.#options.notify(message.notice);
      case 'died':
        return this.#died(DemandPagingError.fromPlain(message.error));
    }
  }

  /** A synchronous source that does not come back cannot be interrupted from inside: look from here. */
  #watch(): NodeJS.Timeout {
    const { sourceTimeoutMs } = this.#options.policy;
    let seen = 0;
    let since = performance.now();
    const look = (): void => {
      const reading = Atomics.load(this.#words, WORD.reading);
      if (reading !== seen || reading % 2 === 0) {
        seen = reading;
        since = performance.now();
      } else if (performance.now() - since >= sourceTimeoutMs) this.#stuck();
    };
    return setInterval(look, Math.max(10, sourceTimeoutMs / 8)).unref();
  }

  #stuck(): void {
    const { sourceTimeoutMs } = this.#options.policy;
    const error = new DemandPagingError(
      'SOURCE_TIMEOUT',
      `a synchronous source did not come back within ${sourceTimeoutMs} ms`,
    );
    clearInterval(this.#watchdog);
    // A thread stuck in a native call cannot be ended; it is left behind then, and can do no more harm.
    const bound = new Promise<void>((resolve) => setTimeout(resolve, TERMINATE_WAIT_MS).unref());
    this.#told = true;
    void Promise.race([this.#worker.terminate(), bound]).then(() => this.#lastRites(error));
  }

  /** Does from here what a resolver that died could not: whoever waits is let go, loudly. */
  async #lastRites(error: DemandPagingError): Promise<void> {
    const { shard, supports, policy, layout, states, notify } = this.#options;
    try {
      const port = await openPort(shard.port);
      const source = { synchronous: true, length: 0, read: () => 0 };
      new Resolver({
        layout,
        states,
        pages: shard.pages,
        port,
        supports,
        source,
        policy,
        counters: this.counters,
        notify,
      }).abort(error);
      port.close();
    } finally {
      this.#died(error);
    }
  }

  #died(error: DemandPagingError): void {
    if (this.#dead) return;
    this.#dead = error;
    this.#failedToStart(error);
    this.#finish();
    this.#options.died(error);
  }

  #finish(): void {
    clearInterval(this.#watchdog);
    const gone = this.#dead ?? new DemandPagingError('CLOSED', 'the pager was closed');
    for (const { reject } of this.#calls.values()) reject(gone);
    this.#calls.clear();
    this.#control.unref();
  }
}

/** Refuses sources that cannot reach where the resolvers run. Throws NOT_SUPPORTED. */
export function checkSourceReach(source: SourceRef, shards: readonly Shard[]): void {
  const workers = shards.filter(({ port }) => port.where === 'worker');
  if (workers.length > 0 && !isModuleSource(source) && !isPortSource(source)) {
    throw new DemandPagingError('NOT_SUPPORTED', 'a source object does not cross to the resolver thread', {
      hint: 'Name it by module and export, or serve it over a MessagePort with servePort()',
    });
  }
  if (isPortSource(source) && shards.length > 1) {
    throw new DemandPagingError('NOT_SUPPORTED', 'a source behind one port cannot serve several resolvers', {
      hint: 'Use one shard, or a module source',
    });
  }
}
