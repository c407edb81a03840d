import { MessageChannel, type MessagePort, receiveMessageOnPort, type Worker } from 'node:worker_threads';
import { type PageRange } from '../api/address.js';
import { DemandPagingError } from '../api/error.js';
import { startThread, threadEnded } from '../api/package-entry.js';
import { SharedVcpuState } from './shared-vcpu-state.js';
import { beginOwnPause } from './own-pause.js';
import { FAILED, READY, type SlotCommand, type SlotReply, type SlotThreadData } from './slot-thread.js';

interface Call {
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** The control thread's end of the slot thread. */
export class SlotClient {
  readonly #shared: SharedVcpuState;
  readonly #control: MessagePort;
  readonly #worker: Worker;
  readonly #calls = new Map<number, Call>();
  readonly #ended: Promise<void>;
  /** Resolves when memslots can no longer be changed although the attachment is not closing. */
  readonly failure: Promise<DemandPagingError>;
  #fail!: (error: DemandPagingError) => void;
  #next = READY + 1;
  /** Why commands are rejected: the thread has ended. */
  #closedError: DemandPagingError | undefined;
  #closeRequested = false;
  /** Settles when the last queued call has resumed the vCPUs. */
  #queue: Promise<unknown> = Promise.resolve();

  private constructor(data: Omit<SlotThreadData, 'control'>) {
    this.#shared = new SharedVcpuState(data.shared);
    this.failure = new Promise((resolve) => (this.#fail = resolve));
    const { port1, port2 } = new MessageChannel();
    this.#control = port1;
    this.#worker = startWorker(data, port1, port2);
    port1.on('message', ({ id, error }: SlotReply) => this.#settle(id, error));
    let cause: unknown;
    this.#worker.on('error', (thrown) => (cause = thrown));
    this.#ended = new Promise((resolve) => {
      this.#worker.on('exit', () => {
        // The exit event can come before the last messages.
        for (let last = receiveMessageOnPort(port1); last; last = receiveMessageOnPort(port1)) {
          const { id, error } = last.message as SlotReply;
          this.#settle(id, error);
        }
        this.#threadExited(threadEnded('the slot thread ended', cause));
        resolve();
      });
    });
  }

  /**
   * Starts the thread; resolves when every memslot is in place. Rejects with KVM's error; then no memslot is
   * left.
   */
  static async start(data: Omit<SlotThreadData, 'control'>): Promise<SlotClient> {
    const client = new SlotClient(data);
    try {
      await client.#expect(READY);
    } catch (error) {
      await client.#ended;
      throw error;
    }
    // A pager keeps the process alive while it opens, also when that fails; an open pager does not.
    client.#control.unref();
    client.#worker.unref();
    return client;
  }

  /**
   * Runs `body` while every vCPU is paused. One call at a time, and {@link end} comes after. Rejects as
   * `body` does, or, without having called it, with why the vCPUs cannot be paused or with the reason of a
   * signal that was aborted before.
   */
  quiesce<T>(body: () => Promise<T>, signal: AbortSignal): Promise<T> {
    return this.#enqueue(async () => {
      signal.throwIfAborted();
      let paused = false;
      const endOwnPause = beginOwnPause(this.#shared);
      try {
        await unlessAborted(
          this.#send((id) => ({ id, kind: 'pause' })),
          signal,
        );
        paused = true;
        return await body();
      } finally {
        endOwnPause();
        // A pause that has not begun yet ends as soon as it begins.
        const resumed = this.#send((id) => ({ id, kind: 'resume' })).catch(() => {}); // ends with the thread
        if (paused) await resumed;
      }
    });
  }

  /** Maps the populated ones of these pages for the guest. */
  publish(pages: PageRange): Promise<void> {
    return this.#send((id) => ({ id, kind: 'publish', pages }));
  }

  /** Gathers the dirty logs. */
  gather(): Promise<void> {
    return this.#send((id) => ({ id, kind: 'gather' }));
  }

  /** Unmaps pages from the guest and discards their memory. */
  discard(pages: PageRange): Promise<void> {
    return this.#send((id) => ({ id, kind: 'discard', pages }));
  }

  /** Unmaps frozen pages from the guest. */
  freeze(pages: PageRange): Promise<void> {
    return this.#send((id) => ({ id, kind: 'freeze', pages }));
  }

  /**
   * Ends the thread and waits for its end. `keep`: present pages stay mapped for the guest. False: the thread
   * had ended before, and its memslots are as it left them.
   */
  async end(keep: boolean): Promise<boolean> {
    this.#worker.ref(); // while it ends it keeps the process alive
    const alive = !this.#closedError;
    this.#closeRequested = true;
    try {
      if (alive) await this.#enqueue(() => this.#send((id) => ({ id, kind: 'end', keep })));
    } finally {
      await this.#ended;
    }
    return alive;
  }

  #enqueue<T>(body: () => Promise<T>): Promise<T> {
    const turn = this.#queue.then(body);
    this.#queue = turn.catch(() => {});
    return turn;
  }

  #send(command: (id: number) => SlotCommand): Promise<void> {
    if (this.#closedError) return Promise.reject(this.#closedError);
    const id = this.#next++;
    const answer = this.#expect(id);
    this.#control.postMessage(command(id));
    this.#shared.callSlotThread(); // after the message: the slot thread finds it when it wakes
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

  /** No memslot is changed any more: completes the vCPUs' faults and rejects the calls that wait. */
  #threadExited(error: DemandPagingError): void {
    this.#closedError = error;
    if (!this.#closeRequested) {
      this.#shared.stop();
      this.#fail(error);
    }
    this.#shared.endAbandonedPause();
    for (const { reject } of this.#calls.values()) reject(error);
    this.#calls.clear();
    this.#control.unref();
  }
}

/** Errors: TypeError for hooks whose options cannot be cloned. */
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
