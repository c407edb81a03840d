import { MessageChannel, type MessagePort, receiveMessageOnPort } from 'node:worker_threads';
import { type PageRange } from './address.js';
import { importPort, type Shard } from './backend.js';
import { DemandPagingError, asDemandPagingError } from './error.js';
import { InstallLock } from './install-lock.js';
import { Opening } from './opening.js';
import { type ResolverMessage } from './event-sender.js';
import { type Command, type MissingAtClose } from './resolver-protocol.js';
import { type HostOptions, type ResolverHost, settleCall } from './resolver-host.js';
import {
  type Placement,
  placementAfter,
  placementOf,
  type Resident,
  type ResolverThread,
  threadFor,
} from './resolver-pool.js';
import { type CommandMessage, OPENING, type ResolverWorkerData, WORD } from './resolver-thread.js';
import { isPortSource } from './source.js';
import { SourceTime } from './source-time.js';
import { Counters } from './statistics.js';

/** How long a thread that failed or is stuck is waited for. */
const TERMINATE_WAIT_MS = 1000;

/**
 * Starts a resolver on another thread. Neither the thread nor its port keeps the event loop going. An opening
 * that is aborted ends its thread, if no other resolver runs there; one that is inside a native call (a file
 * system that hangs) is left behind there.
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

interface Call {
  readonly command: Command;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/**
 * The control thread's end of a resolver on another thread.
 *
 * The thread can end in three ways: by command, after it failed and cleaned up, or in the middle of anything
 * (a source that calls process.exit(), an uncaught error in a timer of the source, an exhausted heap,
 * termination). Which it was is decided by the shared word {@link WORD.settled}, and by nothing else:
 * messages can arrive after the thread's end, and a thread that was sent `end` may not have reached it. Where
 * the word is not set, this side does what the thread has not.
 *
 * A thread can serve several resolvers. Where it ends because of one, the others go on, on another thread: a
 * resolver keeps no list of waiting accessors, so a new one with the same shared states, which wakes all of
 * them once, knows what the old one knew. Except for what {@link #goesOn} asks for.
 */
class WorkerHost implements ResolverHost, Resident {
  readonly shard: Shard;
  readonly pages: PageRange[];
  readonly counters = new Counters();
  readonly ready: Promise<void>;
  readonly ended: Promise<DemandPagingError | undefined>;
  sourceLength = 0;
  readonly #options: HostOptions;
  readonly #words: Int32Array;
  #placement: Placement | undefined;
  #thread: ResolverThread | undefined;
  #control: MessagePort | undefined;
  readonly #calls = new Map<number, Call>();
  /** Discards that were begun and not ended. */
  #discards = 0;
  /**
   * What a resolver that goes on elsewhere must be sent again: the classes of threads, and which events have
   * listeners.
   */
  readonly #standing = new Map<unknown, Command>();
  #stopped = false;
  readonly #watchdog: NodeJS.Timeout;
  #nextId = 1;
  /** The `missing` choice of the `end` command that was sent. */
  #closeRequested: MissingAtClose | undefined;
  /** Why it is being ended from here. */
  #ending: DemandPagingError | undefined;
  /** Its thread has ended, or is left behind in native code. */
  #over = false;
  #started = false;
  /** Why its opening was abandoned. */
  #refusal: Error | undefined;
  /** What ends going on on another thread, where the source does not open again. */
  #reopening: Opening | undefined;
  /** Which accesses outside the layout were answered is not known any more. */
  #answersLost = false;
  #finished!: (unsettled: DemandPagingError | undefined) => void;
  #closedError: DemandPagingError | undefined;
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
    this.ended = new Promise((resolve) => (this.#finished = resolve));
    this.#watchdog = this.#watch();
    // A failure is reported when the port is used.
    if (options.shard.port.where === 'worker') void importPort(options.shard.port).catch(() => {});
    void this.#start();
  }

  send(command: Command): Promise<unknown> {
    if (this.#gone) return Promise.reject(this.#gone);
    if (command.command === 'add-regions' && this.#answersLost) return Promise.reject(answersLost());
    if (command.command === 'end') this.#closeRequested = command.missing;
    this.#note(command);
    const id = this.#nextId++;
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { command, resolve, reject });
      this.#post(id, command);
    });
  }

  #post(id: number, command: Command): void {
    this.#control!.postMessage({ id, command } satisfies CommandMessage);
    Atomics.add(this.#words, WORD.commands, 1); // after the message: a count that is seen has one
    this.shard.kick();
  }

  #note(command: Command): void {
    if (command.command === 'discard-begin') this.#discards++;
    if (command.command === 'thread') this.#standing.set(command.thread, command);
    if (command.command === 'listen') this.#standing.set('listen', command);
  }

  // ── the thread ──

  async #start(): Promise<void> {
    const { source, policy } = this.#options;
    try {
      const placement = await placementOf(source, policy);
      if (this.#over) return placement.opened(); // it was given up meanwhile
      this.#open(placement, false);
    } catch (thrown) {
      this.#threadEnded(asDemandPagingError(thrown, 'HANDLER_DIED', 'the resolver cannot be started'));
    }
  }

  #open(placement: Placement, goesOn: boolean): void {
    this.#placement = placement;
    const { port1, port2 } = new MessageChannel();
    this.#control = port1;
    this.#setUp(placement, goesOn);
    this.#thread = threadFor(placement);
    // Once there is a thread: a port that is listened to keeps the process alive.
    port1.on('message', (message: ResolverMessage) => this.#receive(message));
    port1.unref();
    this.#thread.open(this, port2);
  }

  /**
   * The first message, sent before there is a thread: what cannot be cloned is refused with nothing begun.
   * (Sent to the thread it would leave a port open that keeps the process alive for ever.)
   */
  #setUp(placement: Placement, goesOn: boolean): void {
    const { source } = this.#options;
    try {
      this.#control!.postMessage(
        this.#workerData(placement, goesOn),
        isPortSource(source) ? [source.port] : [],
      );
    } catch (cause) {
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

  /**
   * A synchronous source must not share the thread on which it was opened: it is opened anew on one of its
   * own.
   */
  #misplaced(): void {
    if (this.#ending) return;
    void this.#thread!.leave(this, TERMINATE_WAIT_MS);
    this.#control!.close();
    try {
      this.#open({ ...this.#placement!, ownThread: true }, this.#started);
    } catch (thrown) {
      this.#threadEnded(asDemandPagingError(thrown, 'HANDLER_DIED', 'the resolver cannot be started'));
    }
  }

  /**
   * Ends an opening in progress. On a thread that others share only this resolver leaves, unless the source's
   * open is inside a call that does not come back: then the others go on elsewhere. Once the resolver opens
   * its port, the opening succeeds: its start is reported, and the caller that aborted it closes the pager.
   */
  giveUp(error: Error): void {
    if (this.#started || this.#over) return;
    const thread = this.#thread;
    const isShared = thread !== undefined && thread.count > 1;
    if (isShared && !this.#claim(OPENING.givenUp)) return;
    this.#refusal = error;
    this.#ending ??= asDemandPagingError(error, 'CLOSED', 'the opening was aborted');
    const reading = Atomics.load(this.#words, WORD.reading);
    if (!thread) this.#threadEnded(this.#ending);
    else if (isShared && reading % 2 !== 0 && this.#condemn(reading))
      void thread.terminate(TERMINATE_WAIT_MS, true);
    else this.#leave(this.#ending);
  }

  /** Whether the opening's end is this one. */
  #claim(end: number): boolean {
    return Atomics.compareExchange(this.#words, WORD.opening, OPENING.inProgress, end) === OPENING.inProgress;
  }

  threadEnded(error: DemandPagingError, { ownThread, blamed }: Parameters<Resident['threadEnded']>[1]): void {
    // A reply that arrives now has not been handled when the next resolver is sent the regions.
    const changing = this.#waitsFor('add-regions', 'remove-regions');
    // The end of a thread can be heard before what it sent last: why it failed, or that it has ended.
    const control = this.#control!;
    for (let last = receiveMessageOnPort(control); last; last = receiveMessageOnPort(control))
      this.#receive(last.message as ResolverMessage);
    if (!ownThread && !changing && this.#goesOn) this.#goOn(placementAfter(this.#placement!, blamed));
    else this.#threadEnded(error);
  }

  #waitsFor(...commands: readonly Command['command'][]): boolean {
    return [...this.#calls.values()].some(({ command }) => commands.includes(command.command));
  }

  /**
   * Whether a new resolver can go on: this one has not failed, was not ended because of itself, and the
   * thread ended in no place where something may be lost that is stored nowhere else. That is an event that
   * was taken and not applied, and how many `remove` events of a discard in progress were read; and a source
   * behind a port has ended with the thread.
   */
  get #goesOn(): boolean {
    const reads = Atomics.load(this.#words, WORD.reading) % 2 !== 0;
    const lost = Atomics.load(this.#words, WORD.taking) === 1 || this.#discards > 0;
    const over = this.#ending !== undefined || this.#closeRequested !== undefined || this.#stopped;
    return !reads && !lost && !over && !this.#options.cleanup.done && !isPortSource(this.#options.source);
  }

  #goOn(placement: Placement): void {
    this.#control!.close();
    this.#placement!.opened(); // what was to be learnt from it is not known
    for (const word of [WORD.commands, WORD.handled, WORD.opening]) Atomics.store(this.#words, word, 0);
    InstallLock.release(this.#words, WORD.installing);
    this.#answersLost ||= this.counters.get('outsideFaults') > 0;
    try {
      this.#open(placement, this.#started);
      for (const command of this.#standing.values()) this.#post(0, command);
      for (const [id, { command }] of this.#calls) this.#post(id, command);
    } catch (thrown) {
      return this.#threadEnded(
        asDemandPagingError(thrown, 'HANDLER_DIED', 'the resolver cannot be started again'),
      );
    }
    if (this.#started) this.#watchReopening();
  }

  /** The source must open again in time, too: until then nothing is served. */
  #watchReopening(): void {
    this.#reopening?.end();
    const reopening = new Opening(this.#options.policy.openTimeout_ms, undefined);
    this.#reopening = reopening;
    reopening.signal.addEventListener('abort', () => {
      if (!this.#claim(OPENING.givenUp)) return;
      this.#leave(reopening.signal.reason as DemandPagingError);
    });
  }

  #workerData({ ownThread, anySource }: Placement, goesOn: boolean): ResolverWorkerData {
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
      ownThread,
      anySource,
      goesOn,
    };
  }

  #receive(message: ResolverMessage): void {
    switch (message.kind) {
      case 'ready':
        this.#reopening?.end();
        if (this.#started) return; // it goes on
        this.sourceLength = message.sourceLength;
        this.#started = true;
        this.#placement!.opened(message.synchronous ? 'synchronous' : 'asynchronous', this.#thread);
        return this.#becameReady();
      case 'reply': {
        const call = this.#calls.get(message.id);
        this.#calls.delete(message.id);
        // Its reply, and not its sending: events of the discard may wait to be applied until then.
        if (call?.command.command === 'discard-end') this.#discards--;
        return call && settleCall(message.reply, call.resolve, call.reject);
      }
      case 'misplaced':
        return this.#misplaced();
      case 'event':
        Atomics.add(this.#words, WORD.handled, 1);
        this.#stopped ||= message.event.kind === 'stopped';
        return this.#options.notify(message.event);
      case 'ended': // what its source left running ends with the thread; it gets the time of a fetch
        return this.#leave(
          new DemandPagingError('CLOSED', 'the pager was closed'),
          this.#options.policy.sourceTimeout_ms,
        );
      case 'died': {
        const error = DemandPagingError.fromPlain(message.error);
        if (this.#started && this.#options.cleanup.done) this.#die(error, this.#waiters); // said at once
        return this.#leave(error);
      }
    }
  }

  /** A call of the source that does not come back cannot be interrupted from inside: look from here. */
  #watch(): NodeJS.Timeout {
    const { sourceTimeout_ms } = this.#options.policy;
    let seen = 0;
    let since = performance.now();
    const time = SourceTime.forTimeout(sourceTimeout_ms, since);
    const look = (): void => {
      const now = time.look(performance.now());
      const reading = Atomics.load(this.#words, WORD.reading);
      const isOpening = !this.#started; // that has a time-out of its own
      if (isOpening || reading !== seen || reading % 2 === 0) {
        seen = reading;
        since = now;
      } else if (now - since >= sourceTimeout_ms && this.#condemn(seen)) this.#stuck();
    };
    return setInterval(look, time.interval_ms).unref();
  }

  /**
   * Whether the thread is still inside the call of the source, or will not get beyond its end. It reads the
   * one word after it has set the other, as this side does: they cannot both miss the other's write.
   */
  #condemn(reading: number): boolean {
    Atomics.store(this.#words, WORD.condemned, 1);
    if (Atomics.load(this.#words, WORD.reading) === reading) return true;
    Atomics.store(this.#words, WORD.condemned, 0);
    Atomics.notify(this.#words, WORD.condemned);
    return false;
  }

  #stuck(): void {
    const { sourceTimeout_ms } = this.#options.policy;
    const error = new DemandPagingError(
      'SOURCE_TIMEOUT',
      `the source did not come back within ${sourceTimeout_ms} ms`,
    );
    clearInterval(this.#watchdog);
    this.#ending ??= error;
    void this.#thread!.terminate(TERMINATE_WAIT_MS, true);
  }

  /** The resolver has ended; its thread has with it, if no other runs there. */
  #leave(error: DemandPagingError, bound_ms = TERMINATE_WAIT_MS): void {
    this.#ending ??= error;
    void this.#thread!.leave(this, bound_ms).then(() => this.#threadEnded(error));
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
      if (this.#closeRequested === undefined) cleanup.abort(error, notify);
      else if (this.#closeRequested !== 'leave') cleanup.end(this.#closeRequested);
      return undefined;
    } catch (thrown) {
      const cause = asDemandPagingError(thrown, 'HANDLER_DIED', 'no port can be opened from here');
      return new DemandPagingError('HANDLER_DIED', `${error.message}; what waits could not be let go`, {
        cause,
      });
    }
  }

  #finish(error: DemandPagingError, unsettled: DemandPagingError | undefined): void {
    if (!this.#started) this.#placement?.opened();
    if (this.#closeRequested === undefined || unsettled)
      this.#die(unsettled ?? error, unsettled ? 'blocked' : this.#waiters);
    this.#refuse(new DemandPagingError('CLOSED', 'the pager was closed'));
    this.#failedToStart(this.#refusal ?? error);
    this.#control?.close();
    this.#finished(unsettled);
  }

  get #waiters(): 'poisoned' | 'blocked' {
    return this.#options.supports.verbs.includes('poison') ? 'poisoned' : 'blocked';
  }

  #die(error: DemandPagingError, waiters: 'poisoned' | 'blocked'): void {
    if (this.#closedError) return;
    this.#closedError = error;
    this.#refuse(error);
    if (this.#started) this.#options.died(error, waiters);
  }

  /** No command can be sent any more, and none is answered. */
  #refuse(error: DemandPagingError): void {
    clearInterval(this.#watchdog);
    this.#reopening?.end();
    this.#gone ??= error;
    for (const { reject } of this.#calls.values()) reject(this.#gone);
    this.#calls.clear();
  }
}

const answersLost = (): DemandPagingError =>
  new DemandPagingError('NOT_SUPPORTED', 'regions cannot be added any more: accesses outside were answered', {
    hint: 'The thread that knew which has ended. Close the pager and open one with the other regions',
  });
