import { type PageIndex, type PageRange } from '../api/address.js';
import { type FaultPort, type Wait } from '../api/backend.js';
import { DemandPagingError } from '../api/error.js';
import { type FaultBatch, type OutsideFault, WRITE } from '../api/fault.js';
import {
  FLAG,
  OUTCOME,
  OUTCOMES,
  type Outcome,
  type ResolutionBatch,
  takesBytes,
  VERB,
} from '../api/resolution.js';
import { AdaptivePolling } from '../linux/adaptive-polling.js';
import {
  check,
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
import { RESULT, SharedVcpuState, type SharedVcpuStateToken } from './shared-vcpu-state.js';
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

/** All that is needed to open the port in any isolate of the process. Cloneable. */
export interface ExitPortToken {
  readonly shared: SharedVcpuStateToken;
  readonly regions: readonly SlotRegion[];
  readonly doorbell: number;
  /** The userfaultfd for accessors other than vCPUs; -1 for none. */
  readonly uffd: number;
  /** Messages that the event loop has read from it and no port has taken; see {@link UffdArrivals}. */
  readonly arrivals: SharedArrayBuffer;
  /** Whether contents can be moved in as transparent huge pages, which saves the copy. */
  readonly moves: boolean;
  /** Regions of huge pages, by first page: installed in units of that size. */
  readonly hugeUnits: ReadonlyMap<number, number>;
  /** The memory files of plain regions, by first page. */
  readonly files: ReadonlyMap<number, RegionFile>;
  /** Regions, by first page, whose discarded pages read as zeros whatever other processes do. */
  readonly zeroFilled: ReadonlySet<number>;
  /** For guest_memfd: the address at which each region, by first page, is populated. */
  readonly aliases: ReadonlyMap<number, number> | undefined;
  /** For `userfault-bitmap`: the address of each region's bitmap, by first page. */
  readonly userfault: ReadonlyMap<number, number> | undefined;
  readonly staging_bytes: number;
  /** The declared verbs, as a mask by verb code. */
  readonly verbs: number;
}

/** Where and why a row stopped: the outcome and errno, and how many pages were done. */
interface Stopped {
  readonly outcome: number;
  readonly pages: number;
  readonly errno: number;
}

const MESSAGES = 128;
/** Zeros are written in pieces of this size, or of one page. */
const ZEROS_BYTES = 0x1_0000;
/** The longest native wait: an isolate that is terminated ends only between native calls. */
const SLICE_MS = 200;
const POLLS_PER_CLOCK = 64;
const SPECIAL = UFFD_PAGEFAULT_FLAG.WP | UFFD_PAGEFAULT_FLAG.MINOR | UFFD_PAGEFAULT_FLAG.RWP;

/**
 * The fault port of vCPUs that fault by exits, with a userfaultfd for all other accessors of the same memory.
 * Contents are installed in the memory, then the page is marked `populated`; the slot thread maps it for the
 * guest when a vCPU faults on it. Never issues a memslot operation.
 */
export class ExitPort implements FaultPort {
  readonly staging: Uint8Array;
  readonly #token: ExitPortToken;
  readonly #shared: SharedVcpuState;
  readonly #staging: Mapping;
  /** Zeros for at least the largest page; never written. */
  readonly #zeros: Mapping;
  readonly #doorbell: EventFd;
  readonly #uffd: UffdPort | undefined;
  readonly #arrivals: UffdArrivals;
  readonly #poller: Poller;
  readonly #installer: PageInstaller;
  /** Missing pages of the chunks that vCPUs wait for, with the vCPU; not reported yet. */
  readonly #chunkRest: { page: PageIndex; vcpu: number }[] = [];
  #seenFaults = 0;
  #seenKicks = 0;
  /** Pages that are complete and requested but cannot be mapped, because the process has no mappings left. */
  readonly #withoutRoom = new Set<PageIndex>();
  #seenRoom = 0;
  readonly #budget = new MappingBudget();
  #closed = false;

  constructor(token: ExitPortToken) {
    this.#token = token;
    this.#shared = new SharedVcpuState(token.shared);
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
            this.#shared.noteUnmapped(),
          )
        : installerOf(token, this.#uffd, this.#zeros, staging);
  }

  // ── taking ──

  take(batch: FaultBatch, wait: Wait, timeout_ms: number): number {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the port was closed');
    const taken = this.#collect(batch);
    if (taken > 0 || wait === 'none') return taken;
    if (wait === 'block') {
      const polled = this.#polling.poll(batch);
      if (polled > 0) return polled;
    }
    const deadline = performance.now() + timeout_ms;
    return wait === 'spin' ? this.#spin(batch, deadline) : this.#sleep(batch, deadline);
  }

  async ready(): Promise<void> {
    // Set first, then checked again: a fault raised before is seen here, one raised after rings the doorbell.
    this.#shared.asleep = true;
    if (!this.#closed && !this.#waiting()) await this.#arrival();
    this.#shared.asleep = false;
    if (this.#closed) return;
    this.#doorbell.clear();
    this.#seenKicks = this.#shared.kicks;
  }

  /** Whether there are faults or kicks that have not been collected. */
  #waiting(): boolean {
    const { raisedFaults, kicks } = this.#shared;
    const changed = raisedFaults !== this.#seenFaults || kicks !== this.#seenKicks;
    return changed || this.#chunkRest.length > 0 || this.#arrivals.pending;
  }

  /** Readers in the event loop for {@link ready}; created by its first call. */
  #readers: readonly EventLoopReader[] | undefined;
  #arrived: () => void = () => {};

  /** Resolves when the event loop has read messages, which the next `take` returns, or the doorbell. */
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

  /** While it polls the resolver is not marked asleep: a fault that is raised meanwhile rings no doorbell. */
  readonly #polling = new AdaptivePolling({
    drain: (batch) => this.#collect(batch),
    isKicked: () => this.#shared.kicks !== this.#seenKicks,
  });

  #sleep(batch: FaultBatch, deadline: number): number {
    for (;;) {
      const left = deadline - performance.now();
      // Set first, then checked again: a fault raised before is seen here, one raised after rings the
      // doorbell.
      this.#shared.asleep = true;
      const result = this.#waiting()
        ? 0
        : this.#poller.wait(left <= 0 ? 0 : Math.ceil(Math.min(left, SLICE_MS)));
      this.#shared.asleep = false;
      if (result < 0 && result !== -ERRNO.EINTR)
        throw systemError('poll', -result, 'faults cannot be waited for');
      if (result > 0 && this.#poller.ready(0) !== 0) this.#doorbell.clear();
      const taken = this.#collect(batch);
      if (taken > 0) return taken;
      if (this.#kicked() || left <= 0) return 0;
    }
  }

  #spin(batch: FaultBatch, deadline: number): number {
    for (let poll = 1; ; poll++) {
      const taken = this.#collect(batch);
      if (taken > 0) return taken;
      if (this.#kicked()) return 0;
      if (poll % POLLS_PER_CLOCK === 0 && performance.now() >= deadline) return 0;
    }
  }

  #kicked(): boolean {
    const { kicks } = this.#shared;
    if (kicks === this.#seenKicks) return false;
    this.#seenKicks = kicks;
    return true;
  }

  #collect(batch: FaultBatch): number {
    const before = batch.count;
    this.#retryWithoutRoom();
    this.#reportRest(batch);
    const { raisedFaults } = this.#shared;
    if (raisedFaults !== this.#seenFaults) {
      for (let vcpu = 0; vcpu < this.#shared.vcpus && !batch.full; vcpu++) {
        const page = this.#shared.claimFault(vcpu);
        if (page >= 0) this.#vcpuFault(page, vcpu, batch);
      }
      // Faults may be pending that a full batch had no room for: the slots are read again.
      if (!batch.full) this.#seenFaults = raisedFaults;
    }
    if (this.#uffd) this.#readMessages(this.#uffd, batch);
    return batch.count - before;
  }

  /** A vCPU waits for a page, and so for all missing pages of its chunk. */
  #vcpuFault(page: PageIndex, vcpu: number, batch: FaultBatch): void {
    const region = regionOf(this.#token.regions, page)!;
    if (region.chunk === 1) return this.#report(page, vcpu, batch);
    const chunk = chunksAround(region, { first: page, count: 1 });
    // A chunk with an unavailable page can never be mapped.
    if (this.#shared.any('poisoned', chunk))
      return void this.#shared.completeFaults(page, 1, RESULT.poisoned);
    const missing = (each: PageIndex): boolean => !this.#shared.mappable({ first: each, count: 1 });
    for (let each = chunk.first; each < chunk.first + chunk.count; each++)
      if (each !== page && missing(each)) this.#chunkRest.push({ page: each, vcpu });
    if (missing(page)) this.#report(page, vcpu, batch);
    // Complete by now: the vCPU faults again, and the slot thread maps the chunk.
    else if (this.#shared.mappable(chunk)) this.#shared.completeFaults(page, 1);
    this.#reportRest(batch);
  }

  #reportRest(batch: FaultBatch): void {
    while (this.#chunkRest.length > 0 && !batch.full) {
      const { page, vcpu } = this.#chunkRest.shift()!;
      if (!this.#shared.has('populated', page)) this.#report(page, vcpu, batch);
    }
  }

  #report(page: PageIndex, vcpu: number, batch: FaultBatch): void {
    batch.pushFault(0, page, WRITE.unknown, this.#shared.threadOf(vcpu) >>> 0);
    batch.vcpu[batch.count - 1] = vcpu;
  }

  #readMessages(uffd: UffdPort, batch: FaultBatch): void {
    while (!batch.full) {
      const most = Math.min(MESSAGES, batch.capacity - batch.count);
      const count = uffd.receive(most);
      for (let index = 0; index < count; index++) this.#message(uffd, index, batch);
      if (count < most) return;
    }
  }

  #message(uffd: UffdPort, index: number, batch: FaultBatch): void {
    // Reading the event is enough: the thread that moves a placeholder waits until it is read.
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
    this.#shared.noteBlocked(thread, page);
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

  /** Memory that was moved or grew out of a region stays registered. */
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
    if (takesBytes(verb, batch.flags[row]!) && !this.#isStaged(batch, row))
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

  /** Checks the whole row before any part of it is done. */
  #checkPages(first: PageIndex, count: number): void {
    if (Number.isInteger(first) && first >= 0 && count > 0 && first + count <= this.#shared.pages) return;
    throw new RangeError(`pages ${first}..${first + count - 1} are not all in 0..${this.#shared.pages - 1}`);
  }

  /** Whether a row's contents lie in staging, or are direct. */
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

  /** Carries out the part of a row in one region. Returns where it stopped; undefined when it is done. */
  #part(batch: ResolutionBatch, row: number, region: SlotRegion, pages: PageRange): Stopped | undefined {
    const { first, count } = pages;
    switch (batch.verb[row]) {
      case VERB.wake:
        return this.#wake(region, first, count, RESULT.retry);
      case VERB.fail:
        return this.#wake(region, first, count, RESULT.failed);
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
   * `on`: from now on no memslot maps these pages; the attachment unmaps those that are mapped. Off: the
   * pages can be mapped again, and their waiters are woken.
   */
  #freeze(region: SlotRegion, { first, count }: PageRange, on: boolean): Stopped | undefined {
    // Only present pages are frozen here: the resolver holds missing pages back itself.
    const errno = on ? 0 : this.#installer.remap(region, first, count);
    // A page that finds no mapping is mapped on its next access.
    if (errno !== 0 && errno !== ERRNO.ENOMEM) return { outcome: outcomeOf(errno), pages: 0, errno };
    this.#shared.mark('frozen', first, count, on);
    return on ? undefined : this.#wake(region, first, count, RESULT.retry);
  }

  #install(region: SlotRegion, { first, count }: PageRange, verb: number, from: number): Stopped | undefined {
    for (let done = 0; done < count;) {
      const page = first + done;
      if (this.#shared.has('populated', page)) {
        // A page in a guest_memfd is not lost with its mapping, which a late freeze may have replaced.
        if (verb === VERB.poison && this.#token.aliases && !this.#shared.has('frozen', page)) {
          const errno = this.#installer.remap(region, page, 1);
          const outcome = this.#mappedOrRetry(page, errno);
          if (outcome) return { ...outcome, pages: done };
        } else if (verb === VERB.poison && !this.#token.aliases && this.#isLost(region, page)) {
          this.#shared.mark('populated', page, 1, false);
          return { outcome: OUTCOME.failed, pages: done, errno: ERRNO.EHWPOISON };
        }
        const stopped = this.#wake(region, page, 1, RESULT.retry);
        if (stopped) return { ...stopped, pages: done };
        return { outcome: OUTCOME['already-present'], pages: done, errno: ERRNO.EEXIST };
      }
      let end = page + 1;
      while (end < first + count && !this.#shared.has('populated', end)) end++;
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
   * Settles the result of mapping a requested page. If the process has no mappings left, the slot thread
   * unmaps other pages, and the waiters of this page are woken then; if there are none to unmap, the page has
   * failed.
   */
  #mappedOrRetry(page: PageIndex, errno: number): Omit<Stopped, 'pages'> | undefined {
    // Mapped because an accessor waits for it: others are unmapped before the process runs out of mappings.
    if (errno === 0 && this.#budget.take()) return undefined;
    if (errno !== 0 && (errno !== ERRNO.ENOMEM || this.#shared.roomless))
      return { outcome: outcomeOf(errno), errno };
    if (errno !== 0) this.#withoutRoom.add(page);
    this.#shared.askForRoom(errno !== 0);
    return errno === 0 ? undefined : { outcome: OUTCOME['already-present'], errno: ERRNO.EEXIST };
  }

  /** Once other pages were unmapped: wakes the waiters of pages that had no room, which fault again. */
  #retryWithoutRoom(): void {
    const { roomAnswers } = this.#shared;
    if (roomAnswers === this.#seenRoom) return;
    this.#seenRoom = roomAnswers;
    for (const page of this.#withoutRoom) {
      const woken = this.#installer.wake(regionOf(this.#token.regions, page)!, page, 1);
      check(woken, 'ioctl UFFDIO_WAKE', 'waiters cannot be woken');
    }
    this.#withoutRoom.clear();
    this.#budget.recount();
  }

  /**
   * Whether a populated page is gone, or a part of it: another thread or process has discarded it without the
   * pager. Checked before the page is poisoned: where a memslot maps poison, KVM sends SIGBUS to the vCPU's
   * thread.
   */
  #isLost(region: SlotRegion, page: PageIndex): boolean {
    if (!this.#uffd || this.resident(page)) return false;
    const start = region.address + (page - region.page) * region.pageSize;
    // A swapped-out page is not resident, but not lost.
    return pagemap(start, region.pageSize / pageSize()).some(({ present, swapped }) => !present && !swapped);
  }

  /** Installs a run of missing pages. */
  #installRun(verb: number, region: SlotRegion, first: PageIndex, count: number, from: number): Installed {
    if (verb === VERB.poison) {
      this.#shared.mark('poisoned', first, count, true);
      const poisoned = this.#installer.poison(region, first, count);
      this.#shared.clearBlocked(first, count);
      this.#completeChunks(region, first, count, RESULT.poisoned);
      return poisoned;
    }
    const installed =
      verb === VERB.copy
        ? this.#installer.copy(region, first, count, from)
        : this.#installer.zero(region, first, count);
    this.#shared.clearBlocked(first, count);
    // After the contents are there, and before any memslot maps them.
    this.#shared.mark('populated', first, installed.pages, true);
    if (this.#token.userfault && installed.pages > 0) {
      this.#map(region, { first, count: installed.pages });
      return installed;
    }
    if (installed.pages > 0 && this.#isWaitedFor(chunksAround(region, { first, count: installed.pages })))
      this.#shared.callSlotThread();
    return installed;
  }

  /** For `userfault-bitmap`: an installed page is mapped at once, without a memslot update. */
  #map(region: SlotRegion, pages: PageRange): void {
    const bits = bitsOf(region, pages);
    SharedBits.borrow(this.#token.userfault!.get(region.page)!).clear(bits.first, bits.count);
    this.#shared.mark('mapped', pages.first, pages.count, true);
    this.#shared.completeFaults(pages.first, pages.count);
  }

  /** A thread that is not woken waits for ever: where the kernel refuses, no vCPU is answered either. */
  #wake(region: SlotRegion, first: PageIndex, count: number, result: number): Stopped | undefined {
    const woken = this.#installer.wake(region, first, count);
    if (woken < 0) return { outcome: outcomeOf(-woken), pages: 0, errno: -woken };
    this.#shared.clearBlocked(first, count);
    this.#completeChunks(region, first, count, result);
    return undefined;
  }

  /** Completes faults by whole chunks, since a vCPU waits for all of a chunk. */
  #completeChunks(region: SlotRegion, first: PageIndex, count: number, result: number): void {
    const chunks = chunksAround(region, { first, count });
    this.#shared.completeFaults(chunks.first, chunks.count, result);
  }

  #isWaitedFor({ first, count }: PageRange): boolean {
    for (let vcpu = 0; vcpu < this.#shared.vcpus; vcpu++) {
      const page = this.#shared.waitsFor(vcpu);
      if (page >= first && page < first + count) return true;
    }
    return false;
  }

  resident(page: PageIndex): boolean {
    if (!this.#shared.has('populated', page)) return false;
    const region = regionOf(this.#token.regions, page)!;
    const address = region.address + (page - region.page) * region.pageSize;
    return !this.#uffd || residentPages(address, region.pageSize).every((there) => there === 1);
  }

  /**
   * Before the port closes: maps unmapped pages, whose faults no port will serve, or poisons those that it
   * cannot map.
   */
  #mapUnmapped(): void {
    if (!this.#token.aliases || !this.#shared.anyUnmapped) return;
    for (const region of this.#token.regions) {
      const isHeld = (page: PageIndex): boolean =>
        !this.#shared.has('populated', page) || this.#shared.has('frozen', page);
      for (let page = region.page, stop = page + region.count; page < stop;) {
        let end = page;
        while (end < stop && !isHeld(end)) end++;
        const count = end - page;
        if (count > 0 && this.#installer.remap(region, page, count) !== 0)
          this.#installer.poison(region, page, count);
        // Where that is refused: the userfaultfd is closed next, which wakes every waiter.
        if (count > 0) this.#installer.wake(region, page, count);
        page = end + 1;
      }
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#mapUnmapped();
    this.#closed = true;
    this.#shared.asleep = false;
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

/** Memory that huge pages are moved out of, with a spare one at its end. */
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
 * Opens the port in this isolate: the export that a resolver's worker imports.
 * Blocks: never. Errors: NATIVE_UNAVAILABLE, KERNEL (ENOMEM for staging). Requires: the attachment is open.
 */
export const openExitPort = (token: ExitPortToken): ExitPort => new ExitPort(token);
