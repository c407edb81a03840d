import { MessageChannel, type MessagePort, receiveMessageOnPort, type Worker } from 'node:worker_threads';
import { type PageRange } from '../api/address.js';
import { DemandPagingError } from '../api/error.js';
import { startThread, threadEnded } from '../api/package-entry.js';
import { ExitBoard } from './exit-board.js';
import { standBy } from './standing.js';
import { FAILED, READY, type SlotCommand, type SlotReply, type SlotThreadData } from './slot-thread.js';

interface Call {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** The control thread's end of the slot thread. */
export class SlotClient {
  readonly #board: ExitBoard;
  readonly #control: MessagePort;
  readonly #worker: Worker;
  readonly #calls = new Map<number, Call>();
  readonly #ended: Promise<void>;
  /** Resolves when slots cannot be changed any more, though nobody has ended it. */
  readonly failure: Promise<DemandPagingError>;
  #fail!: (error: DemandPagingError) => void;
  #next = READY + 1;
  /** The thread is gone. */
  #dead: DemandPagingError | undefined;
  #told = false;
  /** Settles when the vCPUs go again. */
  #turn: Promise<unknown> = Promise.resolve();

  private constructor(data: Omit<SlotThreadData, 'control'>) {
    this.#board = new ExitBoard(data.board);
    this.failure = new Promise((resolve) => (this.#fail = resolve));
    const { port1, port2 } = new MessageChannel();
    this.#control = port1;
    this.#worker = startWorker(data, port1, port2);
    port1.on('message', ({ id, error }: SlotReply) => this.#settle(id, error));
    let cause: unknown;
    this.#worker.on('error', (thrown) => (cause = thrown));
    this.#ended = new Promise((resolve) => {
      this.#worker.on('exit', () => {
        // The end can be told before what was sent last.
        for (let last = receiveMessageOnPort(port1); last; last = receiveMessageOnPort(port1)) {
          const { id, error } = last.message as SlotReply;
          this.#settle(id, error);
        }
        this.#die(threadEnded('the slot thread ended', cause));
        resolve();
      });
    });
  }

  /** Starts the thread; resolves when every slot is in place. Rejects with what KVM refused; then no slot is left. */
  static async start(data: Omit<SlotThreadData, 'control'>): Promise<SlotClient> {
    const client = new SlotClient(data);
    try {
      await client.#expect(READY);
    } catch (error) {
      await client.#ended;
      throw error;
    }
    // A pager that is being opened keeps the process alive, and so does its failing; an open one does not.
    client.#control.unref();
    client.#worker.unref();
    return client;
  }

  /**
   * Runs `body` while every vCPU stands. One at a time, and {@link end} comes after. Rejects as `body` does, or, without
   * having called it, with why they cannot be made to stand or with the reason of a signal that was aborted before.
   */
  quiesce<T>(body: () => Promise<T>, signal: AbortSignal): Promise<T> {
    return this.#inTurn(async () => {
      signal.throwIfAborted();
      let stand = false;
      const over = standBy(this.#board);
      try {
        await unlessAborted(
          this.#send((id) => ({ id, kind: 'stand' })),
          signal,
        );
        stand = true;
        return await body();
      } finally {
        over();
        // Whoever does not stand yet goes on as soon as he does.
        const going = this.#send((id) => ({ id, kind: 'go' })).catch(() => {}); // with the thread its pause has ended
        if (stand) await going;
      }
    });
  }

  /** Shows the guest what of these pages is filled. */
  publish(pages: PageRange): Promise<void> {
    return this.#send((id) => ({ id, kind: 'publish', pages }));
  }

  /** Gathers what was written. */
  gather(): Promise<void> {
    return this.#send((id) => ({ id, kind: 'gather' }));
  }

  /** Takes pages away from the guest and drops their memory. */
  drop(pages: PageRange): Promise<void> {
    return this.#send((id) => ({ id, kind: 'drop', pages }));
  }

  /** Takes frozen pages out of the guest's sight. */
  hide(pages: PageRange): Promise<void> {
    return this.#send((id) => ({ id, kind: 'hide', pages }));
  }

  /**
   * Ends the thread. `keep`: what is present stays visible. Waits for the thread's end. False: it had ended before
   * it was told, and its slots are where they were.
   */
  async end(keep: boolean): Promise<boolean> {
    this.#worker.ref(); // an end under way keeps the process alive
    const alive = !this.#dead;
    this.#told = true;
    try {
      if (alive) await this.#inTurn(() => this.#send((id) => ({ id, kind: 'end', keep })));
    } finally {
      await this.#ended;
    }
    return alive;
  }

  #inTurn<T>(body: () => Promise<T>): Promise<T> {
    const turn = this.#turn.then(body);
    this.#turn = turn.catch(() => {});
    return turn;
  }

  #send(command: (id: number) => SlotCommand): Promise<void> {
    if (this.#dead) return Promise.reject(this.#dead);
    const id = this.#next++;
    const answer = this.#expect(id);
    this.#control.postMessage(command(id));
    this.#board.callSlotThread(); // after the message: whoever is woken finds it
    return answer;
  }

  #expect(id: number): Promise<void> {
    this.#control.ref();
    return new Promise((resolve, reject) => this.#calls.set(id, { resolve, reject }));
  }

  #settle(id: number, error: SlotReply['error']): void {
    if (id === FAILED) return this.#fail(DemandPagingError.fromPlain(error!));
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    if (this.#calls.size === 0) this.#control.unref();
    if (error) call?.reject(DemandPagingError.fromPlain(error));
    else call?.resolve();
  }

  /** Whoever waits for slots waits in vain: the vCPUs must learn it. */
  #die(error: DemandPagingError): void {
    this.#dead = error;
    if (!this.#told) {
      this.#board.stop();
      this.#fail(error);
    }
    this.#board.endPauseOfTheDead();
    for (const { reject } of this.#calls.values()) reject(error);
    this.#calls.clear();
    this.#control.unref();
  }
}

/** Errors: TypeError for hooks whose options no thread can be given. */
function startWorker(data: Omit<SlotThreadData, 'control'>, ours: MessagePort, control: MessagePort): Worker {
  try {
    return startThread('kvm/slot-worker', {
      workerData: { ...data, control } satisfies SlotThreadData,
      transferList: [control],
    });
  } catch (cause) {
    ours.close();
    const isData = cause instanceof DOMException && cause.name === 'DataCloneError';
    throw isData
      ? new TypeError('hooks.options cannot be cloned, and the slot thread takes a clone', { cause })
      : cause;
  }
}

/** What a promise resolves with, unless a signal is aborted first. */
async function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  let abort = (): void => {};
  const aborted = new Promise<never>((_, reject) => {
    abort = () => reject(signal.reason as Error);
    signal.addEventListener('abort', abort, { once: true });
  });
  try {
    return await Promise.race([promise, aborted]);
  } finally {
    signal.removeEventListener('abort', abort);
  }
}
