import { type FaultBatch, type MemoryEvent, type PageRange, ROW, WRITE } from '../../api/index.js';
import { type ModelAccess } from './model-access.js';

/** An event that somebody's change to the memory waits to have read. */
export interface EventMessage {
  /** An event of the kernel's, or the number of one that no version of the library knows. */
  readonly event: MemoryEvent | number;
  read: boolean;
  onRead: (() => void) | undefined;
}

/**
 * The two queues of a userfaultfd, in the kernel's order: whoever reads gets every pending fault before
 * any event, whichever came first, so a fault can be read ahead of the removal that preceded it.
 * A waiter that is woken takes its unread message with it.
 */
export class MessageQueue {
  /** Accesses that wait, in the order in which they came. */
  #waiting: ModelAccess[] = [];
  /** Those whose fault was not read yet. */
  #unread: ModelAccess[] = [];
  readonly #attributed = new WeakSet<ModelAccess>();
  #events: EventMessage[] = [];
  /** Somebody wants the reader to return without a message. */
  kicked = false;
  /** Called when there is something to read that was not there before. */
  onMessage: () => void = () => {};

  get isEmpty(): boolean {
    return this.#unread.length === 0 && this.#events.length === 0;
  }

  /** Whether a reader that sleeps would be woken. */
  get hasWork(): boolean {
    return this.kicked || !this.isEmpty;
  }

  kick(): void {
    this.kicked = true;
    this.onMessage();
  }

  /** How many accesses wait. */
  get waiting(): number {
    return this.#waiting.length;
  }

  get unreadEvents(): number {
    return this.#events.length;
  }

  /** Adds a waiting access. `attributed`: the mechanism knows its site. */
  addFault(access: ModelAccess, attributed: boolean): void {
    if (attributed) this.#attributed.add(access);
    this.#waiting.push(access);
    this.#unread.push(access);
    this.onMessage();
  }

  addEvent(event: MemoryEvent | number): EventMessage {
    const message: EventMessage = { event, read: false, onRead: undefined };
    this.#events.push(message);
    this.onMessage();
    return message;
  }

  /**
   * Moves the next message into the batch. Returns the event if it was one that no version knows, true or
   * false otherwise.
   */
  readInto(batch: FaultBatch): boolean | number {
    const access = this.#unread.shift();
    if (access) {
      this.#push(batch, access);
      return true;
    }
    const message = this.#events.shift();
    if (!message) return false;
    message.read = true;
    message.onRead?.();
    if (typeof message.event === 'number') return message.event;
    batch.pushEvent(message.event);
    return true;
  }

  /** Lets every access that waits for one of the pages try again. */
  wake({ first, count }: PageRange): number {
    return this.#release(
      (access) => access.page >= first && access.page < first + count,
      (access) => access.wake(),
    );
  }

  /** Lets every access that waits for one of the pages fail. */
  fail({ first, count }: PageRange, errno: number): number {
    return this.#release(
      (access) => access.page >= first && access.page < first + count,
      (access) => {
        access.fail(errno);
        access.onRunnable?.();
      },
    );
  }

  /** An access that waits no more. */
  forget(access: ModelAccess): void {
    this.#release(
      (candidate) => candidate === access,
      () => {},
    );
  }

  /** The descriptor is closed: whoever waits to have an event read goes on. */
  close(): void {
    const events = this.#events;
    this.#events = [];
    for (const message of events) {
      message.read = true;
      message.onRead?.();
    }
  }

  #release(hit: (access: ModelAccess) => boolean, then: (access: ModelAccess) => void): number {
    if (this.#waiting.length === 0) return 0;
    const released = this.#waiting.filter(hit);
    if (released.length === 0) return 0;
    this.#waiting = this.#waiting.filter((access) => !hit(access));
    this.#unread = this.#unread.filter((access) => !hit(access));
    for (const access of released) then(access);
    return released.length;
  }

  #push(batch: FaultBatch, access: ModelAccess): void {
    if (this.#attributed.has(access))
      return batch.push({
        kind: access.kind!,
        page: access.page,
        write: access.write,
        thread: access.thread,
        site: access.site,
        vcpu: access.vcpu,
      });
    batch.pushFault(
      ROW[access.kind!] as 0 | 1 | 2 | 3,
      access.page,
      access.write ? WRITE.yes : WRITE.no,
      access.thread,
    );
  }
}
