import { type MemoryEvent, type FaultBatch, ROW, WRITE } from '../../api/fault.js';
import {
  check,
  UFFD_EVENT,
  UFFD_MSG_WORDS,
  UFFD_PAGEFAULT_FLAG,
  type UffdArrivals,
  type UffdPort,
} from '../../linux/index.js';
import { type AddressMap } from './address-map.js';

const { WP, MINOR, RWP } = UFFD_PAGEFAULT_FLAG;
const SPECIAL = WP | MINOR | RWP;
const WORD = 0x1_0000_0000;

/**
 * Reads a userfaultfd's messages into a batch, addresses turned into pages.
 *
 * A message is one row, except an event over memory that lies in several runs of pages. What of such an
 * event does not fit is carried over; until it is taken, {@link carrying} makes the port answer
 * `again`, as the kernel does while an event is unread.
 */
export class MessageReader {
  readonly #uffd: UffdPort;
  readonly #map: AddressMap;
  readonly #threadIds: boolean;
  readonly #arrivals: UffdArrivals | undefined;
  #carried: MemoryEvent[] = [];

  constructor(uffd: UffdPort, map: AddressMap, threadIds: boolean, arrivals?: UffdArrivals) {
    this.#uffd = uffd;
    this.#map = map;
    this.#threadIds = threadIds;
    this.#arrivals = arrivals;
  }

  /** Messages that are read and not taken: carried over, or read by the event loop. */
  get carrying(): boolean {
    return this.#carried.length > 0 || (this.#arrivals?.pending ?? false);
  }

  /** Appends what there is until the batch is full; how many rows. Never blocks. */
  drain(batch: FaultBatch): number {
    const before = batch.count;
    this.#deliverCarried(batch);
    while (!batch.full && this.#carried.length === 0) {
      const most = Math.min(this.#uffd.batch, batch.capacity - batch.count);
      const count = this.#uffd.receive(most);
      this.#decode(count, batch);
      this.#deliverCarried(batch);
      if (count < most) break;
    }
    return batch.count - before;
  }

  #deliverCarried(batch: FaultBatch): void {
    while (this.#carried.length > 0 && !batch.full) batch.pushEvent(this.#carried.shift()!);
  }

  /** The hot path: a plain switch over words, no object a fault. */
  #decode(count: number, batch: FaultBatch): void {
    const words = this.#uffd.messages;
    for (let i = 0; i < count; i++) {
      const at = i * UFFD_MSG_WORDS;
      if ((words[at]! & 0xff) !== UFFD_EVENT.PAGEFAULT) {
        this.#event(i, batch);
        continue;
      }
      const flags = words[at + 2]!;
      const address = words[at + 4]! + words[at + 5]! * WORD;
      const page = this.#map.pageAt(address);
      const kind =
        (flags & SPECIAL) === 0
          ? ROW.missing
          : flags & MINOR
            ? ROW.minor
            : flags & RWP
              ? ROW.rwp
              : ROW['write-protect'];
      const write = flags & UFFD_PAGEFAULT_FLAG.WRITE ? WRITE.yes : WRITE.no;
      const thread = this.#threadIds ? words[at + 6]! : undefined;
      if (page < 0) batch.pushOutside(kind, address, write, thread);
      else if (this.#threadIds) batch.pushFault(kind, page, write, words[at + 6]!);
      else batch.pushFault(kind, page, write);
    }
  }

  #event(index: number, batch: FaultBatch): void {
    const event = this.#uffd.event(index);
    switch (event.kind) {
      case 'fork':
        return this.#push([{ kind: 'fork', fd: event.fd }], batch);
      case 'remove':
      case 'unmap': {
        const { kind, start, end } = event;
        return this.#push(
          this.#map.pagesIn(start, end).map((pages) => ({ kind, pages })),
          batch,
        );
      }
      case 'remap': {
        const { from, to, length } = event;
        // Where each run begins is only known before the map has followed.
        const rows = this.#map.runsIn(from, from + length).map((pages): MemoryEvent => {
          return { kind: 'remap', pages, to: to + this.#map.addressOf(pages.first) - from };
        });
        this.#map.moveBytes(from, to, length);
        // An accessor that waits at the old place is reached by no resolution of the new one: it faults anew,
        // or finds no memory.
        check(this.#uffd.wake(from, length), 'ioctl UFFDIO_WAKE', 'waiters cannot be woken');
        return this.#push(rows, batch);
      }
      case 'fault':
        return; // decoded by the caller
      default:
        throw new TypeError(`unreachable: ${String(event satisfies never)}`);
    }
  }

  /**
   * One row goes where the message's place is; the rest, and all events after it, wait for room behind the
   * batch's faults.
   */
  #push(rows: readonly MemoryEvent[], batch: FaultBatch): void {
    rows.forEach((row, i) => {
      if (i > 0 || this.#carried.length > 0) this.#carried.push(row);
      else batch.pushEvent(row);
    });
  }
}
