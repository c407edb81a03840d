import { MessageChannel, type Worker } from 'node:worker_threads';
import { type PageRange } from './address.js';
import { type Shard, openPort } from './backend.js';
import { DemandPagingError } from './error.js';
import { type ResolverMessage } from './notice-sender.js';
import { type Command } from './notice.js';
import { type HostOptions, type ResolverHost, settleCall } from './resolver-host.js';
import { startThread } from './package-entry.js';
import { type CommandMessage, type ResolverWorkerData, WORD } from './resolver-thread.js';
import { Resolver } from './resolver.js';
import { isPortSource } from './source.js';
import { Counters } from './statistics.js';

/** How long a thread that failed or is stuck is waited for. */
const TERMINATE_WAIT_MS = 1000;

/** Starts a resolver on a thread of its own. */
export async function startWorker(options: HostOptions): Promise<ResolverHost> {
  const host = new WorkerHost(options);
  await host.ready;
  return host;
}

class WorkerHost implements ResolverHost {
  readonly shard: Shard;
  readonly pages: PageRange[];
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
  /** Told to end, or given up: its end is no surprise. */
  #told = false;
  /** Ended from here because it was stuck. */
  #doomed = false;
  #started = false;
  #finished!: () => void;
  #dead: DemandPagingError | undefined;
  /** Why nothing can be sent any more. */
  #gone: DemandPagingError | undefined;
  #becameReady!: () => void;
  #failedToStart!: (error: Error) => void;

  constructor(options: HostOptions) {
    this.#options = options;
    this.shard = options.shard;
    this.pages = [options.shard.pages];
    this.ready = new Promise((resolve, reject) => {
      this.#becameReady = resolve;
      this.#failedToStart = reject;
    });
    const { port1, port2 } = new MessageChannel();
    this.#control = port1;
    this.#worker = startThread('api/resolver-worker', {
      workerData: this.#workerData(port2),
      transferList: this.#transfers(port2),
      stdout: false,
    });
    // Once there is a thread: a port that is listened to keeps the process alive.
    port1.on('message', (message: ResolverMessage) => this.#receive(message));
    let cause: unknown;
    this.#worker.on('error', (thrown) => (cause = thrown));
    this.#worker.on('exit', () => {
      const error = new DemandPagingError('HANDLER_DIED', "the resolver's thread ended", { cause });
      if (this.#doomed) return; // whoever ended it has the last rites to do
      if (this.#told || this.#dead) this.#finish();
      else void this.#lastRites(error);
    });
    this.ended = new Promise((resolve) => (this.#finished = resolve));
    this.#watchdog = this.#watch();
  }

  send(command: Command): Promise<unknown> {
    if (this.#gone) return Promise.reject(this.#gone);
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
      layout: layout.shape,
      pages: this.pages,
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
        this.#started = true;
        // An open pager does not keep the process alive; one that is being opened, or a command under way, does.
        this.#control.unref();
        this.#worker.unref();
        return this.#becameReady();
      case 'reply': {
        const call = this.#calls.get(message.id);
        this.#calls.delete(message.id);
        if (this.#calls.size === 0) this.#control.unref();
        return call && settleCall(message.reply, call.resolve, call.reject);
      }
      case 'notice':
        Atomics.add(this.#words, WORD.handled, 1);
        return this.#options.notify(message.notice);
      case 'ended': // whatever its source left running in it ends with it
        return this.#terminate();
      case 'died':
        this.#told = true;
        return this.#died(DemandPagingError.fromPlain(message.error), this.#terminated(TERMINATE_WAIT_MS));
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
    this.#doomed = true;
    void this.#terminated(TERMINATE_WAIT_MS).then(() => this.#lastRites(error));
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
        pages: this.pages,
        port,
        supports,
        source,
        policy,
        counters: this.counters,
        notify,
      }).abort(error);
      port.close();
    } catch (cause) {
      // Nobody can be let go from here either: the attachment's end will have to.
      error = new DemandPagingError('HANDLER_DIED', `${error.message}; what waits could not be let go`, {
        cause,
      });
    }
    this.#died(error);
  }

  /**
   * Ends the thread, and resolves when it is gone: no descriptor and no stack of it is left then. A thread inside a
   * native call that does not return cannot be ended: after `boundMs` it is left behind, and runs no more of this code.
   */
  async #terminated(boundMs: number): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const bound = new Promise<void>((resolve) => (timer = setTimeout(resolve, boundMs)));
    await Promise.race([this.#worker.terminate(), bound]);
    clearTimeout(timer);
  }

  /** The resolver has ended as it was told to. What its source left running is granted what a fetch is. */
  #terminate(): void {
    this.#told = true;
    void this.#terminated(this.#options.policy.sourceTimeoutMs).then(() => this.#finish());
  }

  /** Said at once; ended, or refused to have started, when its thread is gone. */
  #died(error: DemandPagingError, thread: Promise<unknown> = Promise.resolve()): void {
    if (this.#dead) return;
    this.#dead = error;
    this.#refuse(error);
    if (this.#started) this.#options.died(error);
    void thread.then(() => {
      this.#failedToStart(error);
      this.#finish();
    });
  }

  /** No command can be sent any more, and none is answered. */
  #refuse(error: DemandPagingError): void {
    clearInterval(this.#watchdog);
    this.#gone ??= error;
    for (const { reject } of this.#calls.values()) reject(this.#gone);
    this.#calls.clear();
  }

  #finish(): void {
    this.#refuse(this.#dead ?? new DemandPagingError('CLOSED', 'the pager was closed'));
    this.#control.close();
    this.#finished();
  }
}
