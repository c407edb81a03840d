import { type PageIndex } from '../api/address.js';
import { type FaultPort, type Wait } from '../api/backend.js';
import { DemandPagingError } from '../api/error.js';
import { type FaultBatch, WRITE } from '../api/fault.js';
import { FLAG, OUTCOME, type ResolutionBatch, VERB } from '../api/resolution.js';
import {
  ERRNO,
  EventFd,
  type Mapping,
  mapMemory,
  pageSize,
  Poller,
  residentPages,
  systemError,
  UFFD_EVENT,
  UFFD_PAGEFAULT_FLAG,
  UffdPort,
} from '../linux/index.js';
import { ANSWER, ExitBoard, type ExitBoardToken } from './exit-board.js';
import { GuestMemfdInstaller, type PageInstaller, plainInstaller, UffdInstaller } from './installer.js';
import { regionOf, type SlotRegion } from './slot-region.js';

/** All that a port needs to be opened in any isolate of the process. Cloneable. */
export interface ExitPortToken {
  readonly board: ExitBoardToken;
  readonly regions: readonly SlotRegion[];
  readonly doorbell: number;
  /** The userfaultfd for everyone who is no vCPU; -1 for none. */
  readonly uffd: number;
  /** Regions of huge pages, by first page: installed in units of that size. */
  readonly hugeUnits: ReadonlyMap<number, number>;
  /** For guest_memfd: where each region, by first page, is filled. */
  readonly aliases: ReadonlyMap<number, number> | undefined;
  readonly stagingBytes: number;
  /** Verbs declared, as a mask by verb code. */
  readonly verbs: number;
}

const MESSAGES = 128;
/** The longest native wait: an isolate that is told to end does so only between native calls. */
const SLICE_MS = 200;
const LOOKS_PER_CLOCK = 64;
const SPECIAL = UFFD_PAGEFAULT_FLAG.WP | UFFD_PAGEFAULT_FLAG.MINOR | UFFD_PAGEFAULT_FLAG.RWP;

/**
 * The resolver's end of vCPUs that fault by exits, with a userfaultfd beside it for all others on the
 * same memory. Contents are installed where they lie, then the page is marked `filled`; the slot thread
 * shows it to the guest when a vCPU asks. Never issues a memslot operation.
 */
export class ExitPort implements FaultPort {
  readonly staging: Uint8Array;
  readonly #token: ExitPortToken;
  readonly #board: ExitBoard;
  readonly #staging: Mapping;
  readonly #doorbell: EventFd;
  readonly #uffd: UffdPort | undefined;
  readonly #poller: Poller;
  readonly #installer: PageInstaller;
  #seenPosts = 0;
  #seenKicks = 0;
  #closed = false;

  constructor(token: ExitPortToken) {
    this.#token = token;
    this.#board = new ExitBoard(token.board);
    const largest = Math.max(...token.regions.map((region) => region.pageSize));
    this.#staging = mapMemory({ kind: 'anonymous', length: Math.max(largest, token.stagingBytes) });
    this.staging = this.#staging.bytes();
    this.#doorbell = EventFd.borrow(token.doorbell);
    this.#uffd = token.uffd < 0 ? undefined : new UffdPort(token.uffd, MESSAGES);
    this.#poller = new Poller([token.doorbell, ...(token.uffd < 0 ? [] : [token.uffd])]);
    this.#installer = installerOf(token, this.#uffd);
  }

  // ── taking ──

  take(batch: FaultBatch, wait: Wait, timeoutMs: number): number {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the port was closed');
    const taken = this.#collect(batch);
    if (taken > 0 || wait === 'none') return taken;
    const deadline = performance.now() + timeoutMs;
    return wait === 'spin' ? this.#spin(batch, deadline) : this.#sleep(batch, deadline);
  }

  async ready(): Promise<void> {
    this.#board.asleep = true;
    while (!this.#closed && !this.#waiting()) {
      if ((await this.#poller.waitAsync(SLICE_MS)) !== 0) break;
    }
    this.#board.asleep = false;
    if (this.#closed) return;
    this.#doorbell.clear();
    this.#seenKicks = this.#board.kicks;
  }

  /** Whether a post or a kick has come that nobody has looked at. */
  #waiting(): boolean {
    return this.#board.posted !== this.#seenPosts || this.#board.kicks !== this.#seenKicks;
  }

  #sleep(batch: FaultBatch, deadline: number): number {
    for (;;) {
      const left = deadline - performance.now();
      this.#board.asleep = true; // said first, then looked again: a post before it is seen, one after it rings
      const result = this.#waiting()
        ? 0
        : this.#poller.wait(left <= 0 ? 0 : Math.ceil(Math.min(left, SLICE_MS)));
      this.#board.asleep = false;
      if (result < 0 && result !== -ERRNO.EINTR)
        throw systemError('poll', -result, 'faults cannot be waited for');
      if (result > 0 && this.#poller.ready(0) !== 0) this.#doorbell.clear();
      const taken = this.#collect(batch);
      if (taken > 0) return taken;
      if (this.#kicked() || left <= 0) return 0;
    }
  }

  #spin(batch: FaultBatch, deadline: number): number {
    for (let look = 1; ; look++) {
      const taken = this.#collect(batch);
      if (taken > 0) return taken;
      if (this.#kicked()) return 0;
      if (look % LOOKS_PER_CLOCK === 0 && performance.now() >= deadline) return 0;
    }
  }

  #kicked(): boolean {
    const { kicks } = this.#board;
    if (kicks === this.#seenKicks) return false;
    this.#seenKicks = kicks;
    return true;
  }

  #collect(batch: FaultBatch): number {
    const before = batch.count;
    const { posted } = this.#board;
    if (posted !== this.#seenPosts) {
      for (let vcpu = 0; vcpu < this.#board.vcpus && !batch.full; vcpu++) {
        const page = this.#board.take(vcpu);
        if (page < 0) continue;
        batch.pushFault(0, page, WRITE.unknown, this.#board.threadOf(vcpu) >>> 0);
        batch.vcpu[batch.count - 1] = vcpu;
      }
      // A batch that filled up may have left letters: they are looked for again.
      if (!batch.full) this.#seenPosts = posted;
    }
    if (this.#uffd) this.#readMessages(this.#uffd, batch);
    return batch.count - before;
  }

  #readMessages(uffd: UffdPort, batch: FaultBatch): void {
    while (!batch.full) {
      const most = Math.min(MESSAGES, batch.capacity - batch.count);
      const count = uffd.read(most);
      if (count === -ERRNO.EAGAIN || count === -ERRNO.EINTR) return;
      if (count < 0)
        throw systemError('read', -count, 'the userfaultfd cannot be read', {
          codes: { [ERRNO.EBADF]: 'CLOSED' },
        });
      for (let index = 0; index < count; index++) this.#message(uffd, index, batch);
      if (count < most) return;
    }
  }

  #message(uffd: UffdPort, index: number, batch: FaultBatch): void {
    const flags = uffd.faultFlags(index);
    if (uffd.eventNumber(index) !== UFFD_EVENT.PAGEFAULT || flags & SPECIAL) {
      throw new DemandPagingError(
        'UNKNOWN_EVENT',
        `userfaultfd event ${uffd.eventNumber(index)} with flags ${flags} was not asked for`,
      );
    }
    const page = this.#pageAtAddress(uffd.faultAddress(index));
    const write = flags & UFFD_PAGEFAULT_FLAG.WRITE ? WRITE.yes : WRITE.no;
    const thread = uffd.faultThread(index);
    this.#board.noteBlocked(thread, page);
    batch.pushFault(0, page, write, thread);
  }

  #pageAtAddress(address: number): PageIndex {
    for (const region of this.#token.regions) {
      const offset = address - region.address;
      if (offset >= 0 && offset < region.count * region.pageSize)
        return region.page + Math.floor(offset / region.pageSize);
    }
    throw new DemandPagingError('BAD_RANGE', `a fault at 0x${address.toString(16)}, outside every region`);
  }

  // ── resolving ──

  resolve(batch: ResolutionBatch): void {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the port was closed');
    for (let row = 0; row < batch.count; row++) this.#row(batch, row);
  }

  #row(batch: ResolutionBatch, row: number): void {
    const verb = batch.verb[row]!;
    const first = batch.page[row]!;
    const count = batch.span[row]!;
    if (!(this.#token.verbs & (1 << verb))) return batch.settle(row, OUTCOME.refused, 0);
    const region = regionOf(this.#token.regions, first);
    if (!region) throw new RangeError(`page ${first} is not of this port`);
    if (verb === VERB.wake) this.#wake(region, first, count, ANSWER.again);
    else if (verb === VERB.fail) this.#wake(region, first, count, ANSWER.failed);
    else return this.#install(batch, row, region);
    batch.settle(row, OUTCOME.installed, count);
  }

  #install(batch: ResolutionBatch, row: number, region: SlotRegion): void {
    const verb = batch.verb[row]!;
    const first = batch.page[row]!;
    const count = batch.span[row]!;
    const direct = (batch.flags[row]! & FLAG.direct) !== 0;
    const from = batch.from[row]! + (direct ? 0 : this.#staging.address);
    for (let done = 0; done < count; done++) {
      const page = first + done;
      if (this.#board.has('filled', page)) {
        this.#wake(region, page, 1, ANSWER.again);
        return batch.settle(row, OUTCOME['already-present'], done, ERRNO.EEXIST);
      }
      const errno = this.#installPage(verb, region, page, from + done * region.pageSize);
      if (errno !== 0) return batch.settle(row, outcomeOf(errno), done, errno);
    }
    batch.settle(row, OUTCOME.installed, count);
    if (verb !== VERB.poison && this.#isWaitedFor(first, count)) this.#board.callSlotThread();
  }

  #installPage(verb: number, region: SlotRegion, page: PageIndex, from: number): number {
    if (verb === VERB.poison) {
      this.#board.mark('poisoned', page, 1, true);
      const errno = this.#installer.poison(region, page);
      this.#board.clearBlocked(page, 1);
      this.#board.answer(page, 1, ANSWER.poisoned);
      return errno;
    }
    const errno =
      verb === VERB.copy ? this.#installer.copy(region, page, from) : this.#installer.zero(region, page);
    this.#board.clearBlocked(page, 1);
    if (errno === 0) this.#board.mark('filled', page, 1, true); // after the contents, before any slot shows them
    return errno;
  }

  #wake(region: SlotRegion, first: PageIndex, count: number, answer: number): void {
    this.#installer.wake(region, first, count);
    this.#board.clearBlocked(first, count);
    this.#board.answer(first, count, answer);
  }

  #isWaitedFor(first: PageIndex, count: number): boolean {
    for (let vcpu = 0; vcpu < this.#board.vcpus; vcpu++) {
      const page = this.#board.waitsFor(vcpu);
      if (page >= first && page < first + count) return true;
    }
    return false;
  }

  resident(page: PageIndex): boolean {
    if (!this.#board.has('filled', page)) return false;
    const region = regionOf(this.#token.regions, page)!;
    const address = region.address + (page - region.page) * region.pageSize;
    return !this.#uffd || residentPages(address, region.pageSize).every((there) => there === 1);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#board.asleep = false;
    this.#poller.close();
    this.#doorbell.close();
    this.#uffd?.close();
    this.#staging.dispose();
  }
}

function outcomeOf(errno: number): number {
  switch (errno) {
    case ERRNO.EAGAIN:
      return OUTCOME.again;
    case ERRNO.ENOENT:
    case ERRNO.ESRCH:
      return OUTCOME.gone;
    default:
      return OUTCOME.failed;
  }
}

function installerOf(token: ExitPortToken, uffd: UffdPort | undefined): PageInstaller {
  if (!uffd) return plainInstaller;
  if (token.aliases) return new GuestMemfdInstaller(uffd, token.aliases);
  const base = pageSize();
  return new UffdInstaller(uffd, { unitOf: (region) => token.hugeUnits.get(region.page) ?? base });
}

/**
 * Opens a port in this isolate: the export that a resolver's worker imports.
 * Blocks: never. Errors: NATIVE_UNAVAILABLE, KERNEL (ENOMEM for staging). Requires: the attachment is open.
 */
export const openExitPort = (token: ExitPortToken): ExitPort => new ExitPort(token);
