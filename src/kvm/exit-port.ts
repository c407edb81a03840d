import { type PageIndex, type PageRange } from '../api/address.js';
import { type FaultPort, type Wait } from '../api/backend.js';
import { DemandPagingError } from '../api/error.js';
import { type FaultBatch, type OutsideFault, WRITE } from '../api/fault.js';
import { FLAG, OUTCOME, OUTCOMES, type Outcome, type ResolutionBatch, VERB } from '../api/resolution.js';
import {
  answerOutsideFault,
  ERRNO,
  EventFd,
  EventLoopReader,
  type Mapping,
  mapMemory,
  pagemap,
  pageSize,
  Poller,
  raw,
  residentPages,
  SharedBits,
  systemError,
  TRANSPARENT_HUGE_BYTES,
  UFFD_EVENT,
  UFFD_PAGEFAULT_FLAG,
  UffdArrivals,
  UffdPort,
} from '../linux/index.js';
import { mapAligned } from './aligned-mapping.js';
import { ANSWER, ExitBoard, type ExitBoardToken } from './exit-board.js';
import {
  GuestMemfdInstaller,
  type Installed,
  type Moving,
  type PageInstaller,
  type RegionFile,
  UffdInstaller,
  WrittenInstaller,
  type Zeros,
} from './installer.js';
import { MappingBudget } from './mapping-limit.js';
import { chunksAround, regionOf, type SlotRegion } from './slot-region.js';
import { bitsOf } from './userfault-slots.js';

/** All that a port needs to be opened in any isolate of the process. Cloneable. */
export interface ExitPortToken {
  readonly board: ExitBoardToken;
  readonly regions: readonly SlotRegion[];
  readonly doorbell: number;
  /** The userfaultfd for everyone who is no vCPU; -1 for none. */
  readonly uffd: number;
  /** What the event loop has read from it and no port has taken; see {@link UffdArrivals}. */
  readonly arrivals: SharedArrayBuffer;
  /** Whether contents of transparent huge pages can be moved in, which costs no copy. */
  readonly moves: boolean;
  /** Regions of huge pages, by first page: installed in units of that size. */
  readonly hugeUnits: ReadonlyMap<number, number>;
  /** The memory files of plain regions, by first page. */
  readonly files: ReadonlyMap<number, RegionFile>;
  /** Regions, by first page, in which what is discarded reads as zeros, whatever happens outside. */
  readonly zeroFilled: ReadonlySet<number>;
  /** For guest_memfd: where each region, by first page, is filled. */
  readonly aliases: ReadonlyMap<number, number> | undefined;
  /** Bitmaps in which pages that come are marked, by the region's first page. */
  readonly userfault: ReadonlyMap<number, number> | undefined;
  readonly staging_bytes: number;
  /** Verbs declared, as a mask by verb code. */
  readonly verbs: number;
}

/** What stopped a row: with which outcome and errno, and how many pages were done. */
interface Stopped {
  readonly outcome: number;
  readonly pages: number;
  readonly errno: number;
}

const MESSAGES = 128;
/** Zeros are written so many at a time, or a page. */
const ZEROS_BYTES = 0x1_0000;
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
  /** Never written: at least as many zeros as the largest page has. */
  readonly #zeros: Mapping;
  readonly #doorbell: EventFd;
  readonly #uffd: UffdPort | undefined;
  readonly #arrivals: UffdArrivals;
  readonly #poller: Poller;
  readonly #installer: PageInstaller;
  /** Pages that complete the chunks of pages asked for, with who asked; not told yet. */
  readonly #rest: { page: PageIndex; vcpu: number }[] = [];
  #seenPosts = 0;
  #seenKicks = 0;
  /** Pages that are complete and asked for, and cannot be mapped for want of mappings. */
  readonly #withoutRoom = new Set<PageIndex>();
  #seenRoom = 0;
  readonly #budget = new MappingBudget();
  #closed = false;

  constructor(token: ExitPortToken) {
    this.#token = token;
    this.#board = new ExitBoard(token.board);
    const largest = Math.max(...token.regions.map((region) => region.pageSize));
    const length = Math.max(largest, token.staging_bytes);
    this.#zeros = mapMemory({ kind: 'anonymous', length: Math.max(largest, ZEROS_BYTES) });
    try {
      this.#staging = token.moves ? mapHuge(length) : mapMemory({ kind: 'anonymous', length });
    } catch (error) {
      this.#zeros.dispose();
      throw error;
    }
    this.staging = this.#staging.bytes(0, length);
    this.#doorbell = EventFd.borrow(token.doorbell);
    this.#arrivals = new UffdArrivals(token.arrivals);
    this.#uffd = token.uffd < 0 ? undefined : new UffdPort(token.uffd, MESSAGES, this.#arrivals);
    this.#poller = new Poller([token.doorbell, ...(token.uffd < 0 ? [] : [token.uffd])]);
    const staging = { address: this.#staging.address, length };
    this.#installer =
      this.#uffd && token.aliases
        ? new GuestMemfdInstaller(this.#uffd, token.aliases, this.#zeros, this.#budget, () =>
            this.#board.noteHidden(),
          )
        : installerOf(token, this.#uffd, this.#zeros, staging);
  }

  // ── taking ──

  take(batch: FaultBatch, wait: Wait, timeout_ms: number): number {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the port was closed');
    const taken = this.#collect(batch);
    if (taken > 0 || wait === 'none') return taken;
    const deadline = performance.now() + timeout_ms;
    return wait === 'spin' ? this.#spin(batch, deadline) : this.#sleep(batch, deadline);
  }

  async ready(): Promise<void> {
    this.#board.asleep = true; // said first, then looked again: a post before it is seen, one after it rings
    if (!this.#closed && !this.#waiting()) await this.#arrival();
    this.#board.asleep = false;
    if (this.#closed) return;
    this.#doorbell.clear();
    this.#seenKicks = this.#board.kicks;
  }

  /** Whether a post or a kick has come that nobody has looked at. */
  #waiting(): boolean {
    const { posted, kicks } = this.#board;
    const told = posted !== this.#seenPosts || kicks !== this.#seenKicks;
    return told || this.#rest.length > 0 || this.#arrivals.pending;
  }

  /** What the event loop reads for {@link ready}; made when it is first asked to. */
  #readers: readonly EventLoopReader[] | undefined;
  #arrived: () => void = () => {};

  /** Resolves when the event loop has read something: messages, which the next `take` finds, or the doorbell. */
  #arrival(): Promise<void> {
    const arrival = new Promise<void>((resolve) => (this.#arrived = resolve));
    this.#readers ??= this.#watched();
    for (const reader of this.#readers) reader.resume();
    return arrival;
  }

  #watched(): readonly EventLoopReader[] {
    const { uffd, doorbell } = this.#token;
    const rung = new EventLoopReader(doorbell, new Uint8Array(8), () => this.#arrived());
    if (uffd < 0) return [rung];
    const messages = new EventLoopReader(uffd, this.#arrivals.bytes, () => {
      this.#arrivals.arrived();
      this.#arrived();
    });
    return [rung, messages];
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
    this.#askAgain();
    this.#tellRest(batch);
    const { posted } = this.#board;
    if (posted !== this.#seenPosts) {
      for (let vcpu = 0; vcpu < this.#board.vcpus && !batch.full; vcpu++) {
        const page = this.#board.take(vcpu);
        if (page >= 0) this.#asked(page, vcpu, batch);
      }
      // A batch that filled up may have left letters: they are looked for again.
      if (!batch.full) this.#seenPosts = posted;
    }
    if (this.#uffd) this.#readMessages(this.#uffd, batch);
    return batch.count - before;
  }

  /** A vCPU waits for a page, and with it for what completes its chunk. */
  #asked(page: PageIndex, vcpu: number, batch: FaultBatch): void {
    const region = regionOf(this.#token.regions, page)!;
    if (region.chunk === 1) return this.#tell(page, vcpu, batch);
    const chunk = chunksAround(region, { first: page, count: 1 });
    // A chunk of which something cannot be had can never be shown.
    if (this.#board.any('poisoned', chunk)) return void this.#board.answer(page, 1, ANSWER.poisoned);
    const missing = (each: PageIndex): boolean => !this.#board.ready({ first: each, count: 1 });
    for (let each = chunk.first; each < chunk.first + chunk.count; each++)
      if (each !== page && missing(each)) this.#rest.push({ page: each, vcpu });
    if (missing(page)) this.#tell(page, vcpu, batch);
    else if (this.#board.ready(chunk)) this.#board.answer(page, 1); // complete meanwhile: asked anew, it is shown
    this.#tellRest(batch);
  }

  #tellRest(batch: FaultBatch): void {
    while (this.#rest.length > 0 && !batch.full) {
      const { page, vcpu } = this.#rest.shift()!;
      if (!this.#board.has('filled', page)) this.#tell(page, vcpu, batch);
    }
  }

  #tell(page: PageIndex, vcpu: number, batch: FaultBatch): void {
    batch.pushFault(0, page, WRITE.unknown, this.#board.threadOf(vcpu) >>> 0);
    batch.vcpu[batch.count - 1] = vcpu;
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
    // To have read it is all: the thread that moves a placeholder waits for that.
    if (uffd.eventNumber(index) === UFFD_EVENT.REMAP) return;
    const flags = uffd.faultFlags(index);
    if (uffd.eventNumber(index) !== UFFD_EVENT.PAGEFAULT || flags & SPECIAL) {
      throw new DemandPagingError(
        'UNKNOWN_EVENT',
        `userfaultfd event ${uffd.eventNumber(index)} with flags ${flags} was not asked for`,
      );
    }
    const address = uffd.faultAddress(index);
    const page = this.locate(address);
    const write = flags & UFFD_PAGEFAULT_FLAG.WRITE ? WRITE.yes : WRITE.no;
    const thread = uffd.faultThread(index);
    if (page < 0) return batch.pushOutside(0, address, write, thread);
    this.#board.noteBlocked(thread, page);
    batch.pushFault(0, page, write, thread);
  }

  locate(address: number): PageIndex {
    for (const region of this.#token.regions) {
      const offset = address - region.address;
      if (offset >= 0 && offset < region.count * region.pageSize)
        return region.page + Math.floor(offset / region.pageSize);
    }
    return -1;
  }

  /** Memory that grew out of a region: what is registered stays so. */
  answerOutside({ address, kind }: OutsideFault, answer: 'zeros' | 'poison'): Outcome {
    const errno = -answerOutsideFault(this.#uffd!, address, kind, answer);
    return errno === 0 ? 'installed' : OUTCOMES[outcomeOf(errno)]!;
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
    this.#checkPages(first, count);
    if (!(this.#token.verbs & (1 << verb))) return batch.settle(row, OUTCOME.refused, 0);
    if (verb === VERB.copy && !this.#isStaged(batch, row))
      return batch.settle(row, OUTCOME.failed, 0, ERRNO.EFAULT);
    for (let done = 0; done < count;) {
      const page = first + done;
      const region = regionOf(this.#token.regions, page)!;
      const part = Math.min(count - done, region.page + region.count - page);
      const stopped = this.#part(batch, row, region, { first: page, count: part });
      if (stopped) {
        const call = stopped.outcome === OUTCOME.failed ? raw.failedCall() : undefined;
        return batch.settle(row, stopped.outcome, done + stopped.pages, stopped.errno, call);
      }
      done += part;
    }
    batch.settle(row, OUTCOME.installed, count);
  }

  /** Before anything of the row is done: what is misuse in part is misuse. */
  #checkPages(first: PageIndex, count: number): void {
    if (Number.isInteger(first) && first >= 0 && count > 0 && first + count <= this.#board.pages) return;
    throw new RangeError(`pages ${first}+${count} are not of this port`);
  }

  /** Whether a row's contents lie in staging, or where the row says that they lie. */
  #isStaged(batch: ResolutionBatch, row: number): boolean {
    if (batch.flags[row]! & FLAG.direct) return true;
    const from = batch.from[row]!;
    const end = batch.page[row]! + batch.span[row]!;
    let bytes = 0;
    for (let page = batch.page[row]!; page < end;) {
      const region = regionOf(this.#token.regions, page)!;
      const count = Math.min(end, region.page + region.count) - page;
      bytes += count * region.pageSize;
      page += count;
    }
    return from >= 0 && from + bytes <= this.staging.length;
  }

  /** The part of a row in one region; what stopped it, if anything did. */
  #part(batch: ResolutionBatch, row: number, region: SlotRegion, pages: PageRange): Stopped | undefined {
    const { first, count } = pages;
    switch (batch.verb[row]) {
      case VERB.wake:
        this.#wake(region, first, count, ANSWER.again);
        return undefined;
      case VERB.fail:
        this.#wake(region, first, count, ANSWER.failed);
        return undefined;
      case VERB.rwprotect:
        return this.#freeze(region, pages, (batch.flags[row]! & FLAG.protect) !== 0);
      default:
        return this.#install(region, pages, batch.verb[row]!, this.#contentsAt(batch, row, first));
    }
  }

  /** The address of a page's contents. */
  #contentsAt(batch: ResolutionBatch, row: number, page: PageIndex): number {
    const direct = (batch.flags[row]! & FLAG.direct) !== 0;
    let address = batch.from[row]! + (direct ? 0 : this.#staging.address);
    for (let at = batch.page[row]!; at < page;) {
      const region = regionOf(this.#token.regions, at)!;
      const count = Math.min(page, region.page + region.count) - at;
      address += count * region.pageSize;
      at += count;
    }
    return address;
  }

  /**
   * Who comes from now on is not let through, and the attachment sees to who is through already; or everybody is again.
   */
  #freeze(region: SlotRegion, { first, count }: PageRange, on: boolean): Stopped | undefined {
    // Only what is present is ever frozen here: what is missing is held without that.
    const errno = on ? 0 : this.#installer.unhide(region, first, count);
    // What finds no mapping is shown to whoever asks for it.
    if (errno !== 0 && errno !== ERRNO.ENOMEM) return { outcome: outcomeOf(errno), pages: 0, errno };
    this.#board.mark('frozen', first, count, on);
    if (!on) this.#wake(region, first, count, ANSWER.again);
    return undefined;
  }

  #install(region: SlotRegion, { first, count }: PageRange, verb: number, from: number): Stopped | undefined {
    for (let done = 0; done < count;) {
      const page = first + done;
      if (this.#board.has('filled', page)) {
        // What lives in a file is not lost with the mapping of it, which a freeze that comes late may have taken away.
        if (verb === VERB.poison && this.#token.aliases && !this.#board.has('frozen', page)) {
          const errno = this.#installer.unhide(region, page, 1);
          const outcome = this.#hidden(page, errno);
          if (outcome) return { ...outcome, pages: done };
        } else if (verb === VERB.poison && !this.#token.aliases && this.#isLost(region, page)) {
          this.#board.mark('filled', page, 1, false);
          return { outcome: OUTCOME.failed, pages: done, errno: ERRNO.EHWPOISON };
        }
        this.#wake(region, page, 1, ANSWER.again);
        return { outcome: OUTCOME['already-present'], pages: done, errno: ERRNO.EEXIST };
      }
      let end = page + 1;
      while (end < first + count && !this.#board.has('filled', end)) end++;
      const { pages, errno } = this.#installRun(
        verb,
        region,
        page,
        end - page,
        from + done * region.pageSize,
      );
      done += pages;
      if (errno !== 0) return { outcome: outcomeOf(errno), pages: done, errno };
    }
    return undefined;
  }

  /**
   * A page that is asked for was mapped, or could not be. Where that is for want of mappings the slot thread hides others, and
   * whoever waits is woken then; where there are none to hide, that is a failure.
   */
  #hidden(page: PageIndex, errno: number): Omit<Stopped, 'pages'> | undefined {
    // Shown because somebody waits for it: others are hidden before the process can map nothing more.
    if (errno === 0 && this.#budget.take()) return undefined;
    if (errno !== 0 && (errno !== ERRNO.ENOMEM || this.#board.roomless))
      return { outcome: outcomeOf(errno), errno };
    if (errno !== 0) this.#withoutRoom.add(page);
    this.#board.askForRoom(errno !== 0);
    return errno === 0 ? undefined : { outcome: OUTCOME['already-present'], errno: ERRNO.EEXIST };
  }

  /** Others were hidden: whoever waits to be shown a page asks again. */
  #askAgain(): void {
    const { roomAnswers } = this.#board;
    if (roomAnswers === this.#seenRoom) return;
    this.#seenRoom = roomAnswers;
    for (const page of this.#withoutRoom) this.#installer.wake(regionOf(this.#token.regions, page)!, page, 1);
    this.#withoutRoom.clear();
    this.#budget.recount();
  }

  /**
   * Whether a page that was brought is not there: somebody dropped it behind the pager, or a part of it. Said before it is
   * poisoned: where a slot shows it, KVM ends by SIGBUS a vCPU's thread that does not expect it.
   */
  #isLost(region: SlotRegion, page: PageIndex): boolean {
    if (!this.#uffd || this.resident(page)) return false;
    const start = region.address + (page - region.page) * region.pageSize;
    // What is swapped out is not resident, and not lost.
    return pagemap(start, region.pageSize / pageSize()).some(({ present, swapped }) => !present && !swapped);
  }

  /** Runs of missing pages. */
  #installRun(verb: number, region: SlotRegion, first: PageIndex, count: number, from: number): Installed {
    if (verb === VERB.poison) {
      this.#board.mark('poisoned', first, count, true);
      const poisoned = this.#installer.poison(region, first, count);
      this.#board.clearBlocked(first, count);
      this.#answerChunks(region, first, count, ANSWER.poisoned);
      return poisoned;
    }
    const installed =
      verb === VERB.copy
        ? this.#installer.copy(region, first, count, from)
        : this.#installer.zero(region, first, count);
    this.#board.clearBlocked(first, count);
    // After the contents, and before any slot shows them.
    this.#board.mark('filled', first, installed.pages, true);
    if (this.#token.userfault && installed.pages > 0) {
      this.#show(region, { first, count: installed.pages });
      return installed;
    }
    if (installed.pages > 0 && this.#isWaitedFor(chunksAround(region, { first, count: installed.pages })))
      this.#board.callSlotThread();
    return installed;
  }

  /** Of a userfault bitmap: what has come is seen at once, and takes no slot. */
  #show(region: SlotRegion, pages: PageRange): void {
    const bits = bitsOf(region, pages);
    SharedBits.borrow(this.#token.userfault!.get(region.page)!).clear(bits.first, bits.count);
    this.#board.mark('live', pages.first, pages.count, true);
    this.#board.answer(pages.first, pages.count);
  }

  #wake(region: SlotRegion, first: PageIndex, count: number, answer: number): void {
    this.#installer.wake(region, first, count);
    this.#board.clearBlocked(first, count);
    this.#answerChunks(region, first, count, answer);
  }

  /** A vCPU waits for all of a chunk. */
  #answerChunks(region: SlotRegion, first: PageIndex, count: number, answer: number): void {
    const chunks = chunksAround(region, { first, count });
    this.#board.answer(chunks.first, chunks.count, answer);
  }

  #isWaitedFor({ first, count }: PageRange): boolean {
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

  /** Nobody shows what is hidden any more to whoever asks: it is shown now, or poisoned where it cannot be. */
  #showHidden(): void {
    if (!this.#token.aliases || !this.#board.anyHidden) return;
    for (const region of this.#token.regions) {
      const isHeld = (page: PageIndex): boolean =>
        !this.#board.has('filled', page) || this.#board.has('frozen', page);
      for (let page = region.page, stop = page + region.count; page < stop;) {
        let end = page;
        while (end < stop && !isHeld(end)) end++;
        const count = end - page;
        if (count > 0 && this.#installer.unhide(region, page, count) !== 0)
          this.#installer.poison(region, page, count);
        if (count > 0) this.#installer.wake(region, page, count);
        page = end + 1;
      }
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#showHidden();
    this.#closed = true;
    this.#board.asleep = false;
    for (const reader of this.#readers ?? []) reader.close();
    this.#arrived();
    this.#poller.close();
    this.#doorbell.close();
    this.#uffd?.close();
    this.#staging.dispose();
    this.#zeros.dispose();
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

/** Memory that huge pages are moved out of, with one to spare at its end. */
function mapHuge(bytes: number): Mapping {
  const length = spareAfter(bytes) + TRANSPARENT_HUGE_BYTES;
  return mapAligned({ kind: 'anonymous', length, transparentHugePages: true }, TRANSPARENT_HUGE_BYTES);
}

const spareAfter = (bytes: number): number =>
  Math.ceil(bytes / TRANSPARENT_HUGE_BYTES) * TRANSPARENT_HUGE_BYTES;

function installerOf(
  token: ExitPortToken,
  uffd: UffdPort | undefined,
  zeros: Zeros,
  staging: Moving['staging'],
): PageInstaller {
  if (!uffd) return new WrittenInstaller(zeros, token.files, token.zeroFilled);
  const base = pageSize();
  const unitOf = (region: SlotRegion): number => token.hugeUnits.get(region.page) ?? base;
  const spare = staging.address + spareAfter(staging.length);
  return new UffdInstaller(uffd, { unitOf }, token.moves ? { staging, spare } : undefined);
}

/**
 * Opens a port in this isolate: the export that a resolver's worker imports.
 * Blocks: never. Errors: NATIVE_UNAVAILABLE, KERNEL (ENOMEM for staging). Requires: the attachment is open.
 */
export const openExitPort = (token: ExitPortToken): ExitPort => new ExitPort(token);
