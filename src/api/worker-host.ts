import { MessageChannel, receiveMessageOnPort, type Worker } from 'node:worker_threads';
import { type PageRange } from './address.js';
import { importPort, type Shard } from './backend.js';
import { DemandPagingError, asDemandPagingError } from './error.js';
import { type ResolverMessage } from './notice-sender.js';
import { type Command, type MissingAtClose } from './notice.js';
import { type HostOptions, type ResolverHost, settleCall } from './resolver-host.js';
import { startThread } from './package-entry.js';
import {
  type CommandMessage,
  type ResolverWorkerData,
  type ResolverWorkerPort,
  WORD,
} from './resolver-thread.js';
import { isPortSource } from './source.js';
import { SourceTime } from './source-time.js';
import { Counters } from './statistics.js';

/** How long a thread that failed or is stuck is waited for. */
const TERMINATE_WAIT_MS = 1000;

/**
 * Starts a resolver on a thread of its own. Neither the thread nor its port keeps the event loop going. An opening that is
 * aborted ends the thread; one that is inside a native call (a file system that hangs) is left behind there.
 */
export async function startWorker(options: HostOptions, signal: AbortSignal): Promise<ResolverHost> {
  signal.throwIfAborted();
  const host = new WorkerHost(options);
  const abort = (): void => host.giveUp(signal.reason as Error);
  signal.addEventListener('abort', abort, { once: true });
  try {
    await host.ready;
  } finally {
    signal.removeEventListener('abort', abort);
  }
  return host;
}

/**
 * The control thread's end of a resolver's thread.
 *
 * The thread can end in three ways: as it was told, after it failed and cleaned up, or in the middle of anything (a source
 * that calls process.exit(), an uncaught error in a timer of the source, an exhausted heap, termination). Which it was is decided
 * by the shared word {@link WORD.settled}, and by nothing else: messages can be heard after the thread's end, and a thread
 * that was told to end may not have got so far. Where the word is not set, this side does what the thread has not.
 */
class WorkerHost implements ResolverHost {
  readonly shard: Shard;
  readonly pages: PageRange[];
  readonly counters = new Counters();
  readonly ready: Promise<void>;
  sourceLength = 0;
  readonly ended: Promise<DemandPagingError | undefined>;
  readonly #options: HostOptions;
  readonly #worker: Worker;
  readonly #words: Int32Array;
  readonly #control;
  readonly #calls = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  readonly #watchdog: NodeJS.Timeout;
  #nextId = 1;
  /** What it was told to do with missing pages when it was told to end. */
  #told: MissingAtClose | undefined;
  /** Why it is being ended from here. */
  #ending: DemandPagingError | undefined;
  /** Its thread has ended, or is left behind in native code. */
  #over = false;
  #started = false;
  /** Why its opening was given up. */
  #refusal: Error | undefined;
  #finished!: (unsettled: DemandPagingError | undefined) => void;
  #dead: DemandPagingError | undefined;
  /** Why nothing can be sent any more. */
  #gone: DemandPagingError | undefined;
  #becameReady!: () => void;
  #failedToStart!: (error: Error) => void;

  constructor(options: HostOptions) {
    this.#options = options;
    this.shard = options.shard;
    this.pages = options.cleanup.pages;
    this.#words = options.cleanup.words;
    this.ready = new Promise((resolve, reject) => {
      this.#becameReady = resolve;
      this.#failedToStart = reject;
    });
    const { port1, port2 } = new MessageChannel();
    this.#control = port1;
    this.#setUp();
    this.#worker = startThread('api/resolver-worker', {
      workerData: { control: port2 } satisfies ResolverWorkerPort,
      transferList: [port2],
      stdout: false,
    });
    // Once there is a thread: a port that is listened to keeps the process alive.
    port1.on('message', (message: ResolverMessage) => this.#receive(message));
    this.#worker.unref();
    port1.unref();
    let cause: unknown;
    this.#worker.on('error', (thrown) => (cause = thrown));
    this.#worker.on('exit', () => {
      // The end of a thread can be heard before what it sent last: why it failed, or that it has ended.
      for (let last = receiveMessageOnPort(port1); last; last = receiveMessageOnPort(port1))
        this.#receive(last.message as ResolverMessage);
      this.#threadEnded(new DemandPagingError('HANDLER_DIED', "the resolver's thread ended", { cause }));
    });
    this.ended = new Promise((resolve) => (this.#finished = resolve));
    this.#watchdog = this.#watch();
    if (options.shard.port.where === 'worker') void importPort(options.shard.port).catch(() => {}); // said when it is used
  }

  send(command: Command): Promise<unknown> {
    if (this.#gone) return Promise.reject(this.#gone);
    if (command.command === 'end') this.#told = command.missing;
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve, reject });
      this.#control.postMessage({ id, command } satisfies CommandMessage);
      Atomics.add(this.#words, WORD.commands, 1); // after the message: a count that is seen has one
      this.shard.kick();
    });
  }

  /**
   * The first message, sent before there is a thread: what cannot be cloned is refused with nothing begun. (Given to the
   * thread's constructor it would leave a port open that keeps the process alive for ever.)
   */
  #setUp(): void {
    const { source } = this.#options;
    try {
      this.#control.postMessage(this.#workerData(), isPortSource(source) ? [source.port] : []);
    } catch (cause) {
      this.#control.close();
      throw new DemandPagingError(
        'NOT_SUPPORTED',
        `what the resolver's thread needs cannot be cloned: ${String(cause)}`,
        {
          cause,
          hint: "A source's options go to another thread: give values and shared memory, no functions, and ports that nothing else has",
        },
      );
    }
  }

  #workerData(): ResolverWorkerData {
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
    };
  }

  /** Ends an opening that is under way. */
  giveUp(error: Error): void {
    this.#refusal = error;
    this.#terminate(asDemandPagingError(error, 'CLOSED', 'the opening was aborted'));
  }

  #receive(message: ResolverMessage): void {
    switch (message.kind) {
      case 'ready':
        this.sourceLength = message.sourceLength;
        this.#started = true;
        return this.#becameReady();
      case 'reply': {
        const call = this.#calls.get(message.id);
        this.#calls.delete(message.id);
        return call && settleCall(message.reply, call.resolve, call.reject);
      }
      case 'notice':
        Atomics.add(this.#words, WORD.handled, 1);
        return this.#options.notify(message.notice);
      case 'ended': // whatever its source left running in it ends with it
        return this.#terminate(
          new DemandPagingError('CLOSED', 'the pager was closed'),
          this.#options.policy.sourceTimeoutMs, // what its source left running is granted what a fetch is
        );
      case 'died': {
        const error = DemandPagingError.fromPlain(message.error);
        if (this.#started && this.#options.cleanup.done) this.#die(error, this.#waiters); // said at once
        return this.#terminate(error);
      }
    }
  }

  /** A synchronous source that does not come back cannot be interrupted from inside: look from here. */
  #watch(): NodeJS.Timeout {
    const { sourceTimeoutMs } = this.#options.policy;
    let seen = 0;
    let since = performance.now();
    const time = SourceTime.forTimeout(sourceTimeoutMs, since);
    const look = (): void => {
      const now = time.look(performance.now());
      const reading = Atomics.load(this.#words, WORD.reading);
      if (reading !== seen || reading % 2 === 0) {
        seen = reading;
        since = now;
      } else if (now - since >= sourceTimeoutMs) this.#stuck();
    };
    return setInterval(look, time.interval_ms).unref();
  }

  #stuck(): void {
    const { sourceTimeoutMs } = this.#options.policy;
    const error = new DemandPagingError(
      'SOURCE_TIMEOUT',
      `a synchronous source did not come back within ${sourceTimeoutMs} ms`,
    );
    clearInterval(this.#watchdog);
    this.#terminate(error);
  }

  /**
   * Ends the thread: no descriptor and no stack of it is left when its end is heard. A thread inside a native call that
   * does not return cannot be ended: after `boundMs` it is left behind, and runs no more of this code.
   */
  #terminate(error: DemandPagingError, boundMs = TERMINATE_WAIT_MS): void {
    this.#ending ??= error;
    const bound = setTimeout(() => this.#threadEnded(error), boundMs);
    void this.#worker.terminate().then(() => clearTimeout(bound));
  }

  /** The thread runs no more of this code: what it has not done is done from here. */
  #threadEnded(error: DemandPagingError): void {
    if (this.#over) return;
    this.#over = true;
    this.#finish(this.#ending ?? error, this.#started ? this.#cleanUp(this.#ending ?? error) : undefined);
  }

  /** Why accesses may still wait, if they may. */
  #cleanUp(error: DemandPagingError): DemandPagingError | undefined {
    const { cleanup, notify } = this.#options;
    if (cleanup.done) return undefined;
    try {
      if (this.#told === undefined) cleanup.abort(error, notify);
      else if (this.#told !== 'leave') cleanup.end(this.#told);
      return undefined;
    } catch (thrown) {
      const cause = asDemandPagingError(thrown, 'HANDLER_DIED', 'no port can be opened from here');
      return new DemandPagingError('HANDLER_DIED', `${error.message}; what waits could not be let go`, {
        cause,
      });
    }
  }

  #finish(error: DemandPagingError, unsettled: DemandPagingError | undefined): void {
    if (this.#told === undefined || unsettled)
      this.#die(unsettled ?? error, unsettled ? 'blocked' : this.#waiters);
    this.#refuse(new DemandPagingError('CLOSED', 'the pager was closed'));
    this.#failedToStart(this.#refusal ?? error);
    this.#control.close();
    this.#finished(unsettled);
  }

  get #waiters(): 'poisoned' | 'blocked' {
    return this.#options.supports.verbs.includes('poison') ? 'poisoned' : 'blocked';
  }

  #die(error: DemandPagingError, waiters: 'poisoned' | 'blocked'): void {
    if (this.#dead) return;
    this.#dead = error;
    this.#refuse(error);
    if (this.#started) this.#options.died(error, waiters);
  }

  /** No command can be sent any more, and none is answered. */
  #refuse(error: DemandPagingError): void {
    clearInterval(this.#watchdog);
    this.#gone ??= error;
    for (const { reject } of this.#calls.values()) reject(this.#gone);
    this.#calls.clear();
  }
}
