import { performance } from 'node:perf_hooks'; // the global is a getter, slower than the clock
import { hex, type PageIndex, type PageRange } from '../../api/address.js';
import { type FaultPort, type Wait } from '../../api/backend.js';
import { DemandPagingError } from '../../api/error.js';
import { type FaultBatch, type OutsideFault } from '../../api/fault.js';
import {
  FLAG,
  OUTCOME,
  type Outcome,
  type ResolutionBatch,
  takesBytes,
  VERB,
  VERBS,
} from '../../api/resolution.js';
import { AdaptivePolling } from '../../linux/adaptive-polling.js';
import {
  answerOutsideFault,
  ERRNO,
  EventLoopReader,
  type Mapping,
  pageSize,
  POLL,
  Poller,
  residentPages,
  raw,
  systemError,
  UFFD_COPY_MODE,
  UFFD_RWPROTECT_MODE,
  UFFD_WRITEPROTECT_MODE,
  UffdArrivals,
  UffdPort,
} from '../../linux/index.js';
import { AddressMap, type Segment } from './address-map.js';
import { KickSeen } from './kick.js';
import { MessageReader } from './message-reader.js';
import { PageCacheFiller } from './page-cache-filler.js';
import { type AddedRegionsToken, type UserfaultfdPortToken } from './port-token.js';
import { register } from './register.js';
import { mapStaging } from './staging.js';

/** Most messages in one read: 8 KiB. */
const MESSAGES = 256;
/**
 * The longest native wait. An isolate that is told to end does so only between native calls, so this
 * bounds how long `terminate()` and `process.exit()` can take, whatever else happens.
 */
const SLICE_MS = 200;
/** Polls of a spinning port between two checks of the clock (and of the other process). */
const POLLS_PER_CLOCK = 64;
const DONTWAKE = UFFD_COPY_MODE.DONTWAKE; // the same bit for copy, zeropage, move, continue and poison

const [UFFD, KICK, PROCESS] = [0, 1, 2];

/**
 * The resolver's end of a userfaultfd. Works in any isolate of the process; used by one thread.
 *
 * `take` sleeps in poll(2) over the userfaultfd and an eventfd, in slices, or reads without sleeping in a
 * loop. `ready` waits on the isolate's event loop, which may wait for any number of ports: no thread is held.
 * Requires: see the backend. Source: ioctl_userfaultfd(2), userfaultfd.rst.
 */
export class UserfaultfdPort implements FaultPort {
  readonly staging: Uint8Array;
  readonly #token: UserfaultfdPortToken;
  readonly #uffd: UffdPort;
  readonly #map: AddressMap;
  readonly #reader: MessageReader;
  readonly #arrivals: UffdArrivals;
  readonly #kick: KickSeen;
  readonly #poller: Poller;
  readonly #staging: Mapping;
  /** The pages of this port; they change with its regions. */
  #pageRanges: readonly PageRange[];
  /** Base pages in which accesses outside were answered: what is there now is no source's. */
  readonly #answered = new Set<number>();
  #filler: PageCacheFiller | undefined;
  #closed = false;

  constructor(token: UserfaultfdPortToken) {
    this.#token = token;
    const largest = Math.max(...token.segments.map((segment) => segment.pageSize));
    this.#staging = mapStaging(token.staging_bytes, largest);
    this.staging = this.#staging.bytes();
    this.#arrivals = new UffdArrivals(token.arrivals);
    this.#uffd = new UffdPort(token.uffd, MESSAGES, this.#arrivals);
    this.#pageRanges = token.pages;
    this.#map = new AddressMap(token.segments);
    this.#reader = new MessageReader(this.#uffd, this.#map, token.threadIds, this.#arrivals);
    this.#kick = new KickSeen(token.kick);
    this.#poller = new Poller([
      token.uffd,
      this.#kick.fd,
      ...(token.process === undefined ? [] : [token.process]),
    ]);
  }

  take(batch: FaultBatch, wait: Wait, timeout_ms: number): number {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the port was closed');
    // With one accessor no message is pending yet: reading before the sleep would be a wasted system call.
    if (wait !== 'block' || this.#burst || this.#reader.carrying) {
      const taken = this.#drain(batch);
      if (taken > 0 || wait === 'none') return taken;
    }
    if (wait === 'block') {
      const taken = this.#polling.poll(batch);
      if (taken > 0) return taken;
    }
    const deadline = timeout_ms === Infinity ? Infinity : performance.now() + timeout_ms;
    return wait === 'spin' ? this.#spin(batch, deadline) : this.#sleep(batch, deadline);
  }

  async ready(): Promise<void> {
    if (!this.#closed && !this.#reader.carrying && !this.#kick.pending) await this.#arrival();
    if (this.#closed) return;
    if (this.#kick.pending) this.#kick.acknowledge();
    if (this.#poller.wait(0) > 0) this.#checkPoll();
  }

  resolve(batch: ResolutionBatch): void {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the port was closed');
    for (let row = 0; row < batch.count; row++) this.#row(batch, row);
  }

  locate(address: number): PageIndex {
    return this.#map.pageAt(address);
  }

  answerOutside({ address, kind }: OutsideFault, answer: 'zeros' | 'poison'): Outcome {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the port was closed');
    // As the kernel does while an event is unread: the address may be a page's once it is.
    if (this.#reader.carrying) return 'again';
    const outcome = outcomeOf(-answerOutsideFault(this.#uffd, address, kind, answer));
    if (outcome === 'installed') this.#answered.add(address - (address % pageSize()));
    return outcome;
  }

  /**
   * Registers what is to be registered on this thread, so that no fault there is read before the pages are
   * known.
   */
  addRegions(token: unknown): void {
    const { pages, segments, mode, features } = token as AddedRegionsToken;
    for (const segment of segments) this.#checkAdded(segment);
    if (mode !== undefined) register(this.#token.uffd, segments, mode, features);
    this.#map.add(segments);
    this.#pageRanges = [...this.#pageRanges, ...pages];
  }

  #checkAdded({ start, count, pageSize: size }: Segment): void {
    const range = { start: BigInt(start), length: BigInt(count * size) };
    if (size > this.staging.length) {
      throw new DemandPagingError('NOT_SUPPORTED', `pages of ${size} bytes do not fit in staging`, {
        range,
        hint: 'Open the backend with as large staging_bytes',
      });
    }
    for (const address of this.#answered) {
      if (address < start || address >= start + count * size) continue;
      throw new DemandPagingError('BAD_RANGE', `an access at ${hex(address)} was answered before`, {
        range,
        hint: 'Add a region before its memory is accessed',
      });
    }
  }

  removeRegion(pages: PageRange): void {
    for (const segment of this.#map.within(pages)) {
      this.#uffd.unregister(segment.start, segment.count * segment.pageSize); // refused where nothing is mapped any more
      this.#filler?.forget(segment);
    }
    this.#map.forget(pages);
  }

  resident(page: PageIndex): boolean {
    const segment = this.#map.at(page);
    if (!segment || !this.#token.local) return false;
    try {
      return residentPages(this.#map.addressOf(page), pageSize())[0] === 1;
    } catch (error) {
      if (error instanceof DemandPagingError && error.errno === ERRNO.ENOMEM) return false; // unmapped
      throw error;
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (const reader of this.#readers ?? []) reader.close();
    this.#arrived();
    this.#poller.close();
    this.#kick.close();
    this.#uffd.close();
    this.#filler?.close();
    this.#staging.dispose();
  }

  // ── waiting ──

  /** What the event loop reads for {@link ready}; made when it is first asked to. */
  #readers: readonly EventLoopReader[] | undefined;
  #arrived: () => void = () => {};

  /**
   * Resolves when the event loop has read something: messages, which the next `take` finds in the arrivals,
   * or a kick, whose count is seen. Or when the other process has ended.
   */
  #arrival(): Promise<void> {
    const arrival = new Promise<void>((resolve) => (this.#arrived = resolve));
    this.#readers ??= this.#watched();
    for (const reader of this.#readers) reader.resume();
    return arrival;
  }

  #watched(): readonly EventLoopReader[] {
    const { uffd, process } = this.#token;
    const nothing = new Uint8Array(8);
    const messages = new EventLoopReader(uffd, this.#arrivals.bytes, () => {
      this.#arrivals.arrived();
      this.#arrived();
    });
    const others = process === undefined ? [this.#kick.fd] : [this.#kick.fd, process];
    return [messages, ...others.map((fd) => new EventLoopReader(fd, nothing, () => this.#arrived()))];
  }

  /** The last read took more than one message: with so many accessors the next read will find messages, too. */
  #burst = false;

  #drain(batch: FaultBatch): number {
    const taken = this.#reader.drain(batch);
    this.#burst = taken > 1;
    return taken;
  }

  readonly #polling = new AdaptivePolling({
    drain: (batch) => this.#drain(batch),
    isKicked: () => this.#kick.pending,
  });

  #sleep(batch: FaultBatch, deadline: number): number {
    for (;;) {
      const left = deadline === Infinity ? Infinity : deadline - performance.now();
      // A kick may have been read by the event loop, for an earlier `ready`: then only its count tells of it.
      const slice = left <= 0 || this.#kick.pending ? 0 : Math.ceil(Math.min(left, SLICE_MS));
      const ready = this.#poller.wait(slice);
      const kicked = this.#kick.pending || (ready > 0 && this.#poller.ready(KICK) !== 0);
      if (kicked) this.#kick.acknowledge();
      if (ready > 0) {
        this.#checkPoll();
        const taken = this.#drain(batch);
        // Another may have read what made the descriptor ready; then it is worth waiting on.
        if (taken > 0) return taken;
      } else if (ready < 0 && ready !== -ERRNO.EINTR) {
        throw systemError('poll', -ready, 'the userfaultfd cannot be waited for');
      }
      if (kicked || left <= 0) return 0;
    }
  }

  #spin(batch: FaultBatch, deadline: number): number {
    for (let poll = 1; ; poll++) {
      const taken = this.#drain(batch);
      if (taken > 0) return taken;
      if (this.#kick.pending) {
        this.#kick.acknowledge();
        return 0;
      }
      if (poll % POLLS_PER_CLOCK !== 0) continue;
      if (deadline !== Infinity && performance.now() >= deadline) return 0;
      if (this.#token.process !== undefined && this.#poller.wait(0) > 0) this.#checkPoll();
    }
  }

  /** What poll said besides "readable". */
  #checkPoll(): void {
    if (this.#poller.ready(UFFD) & (POLL.ERR | POLL.NVAL)) {
      throw new DemandPagingError('CLOSED', 'the userfaultfd is closed, or is a blocking one');
    }
    if (this.#token.process !== undefined && this.#poller.ready(PROCESS) & POLL.IN) {
      throw new DemandPagingError('MEMORY_GONE', 'the process whose memory is served has ended', {
        errno: ERRNO.ESRCH,
      });
    }
  }

  // ── resolving ──

  #row(batch: ResolutionBatch, row: number): void {
    const verb = batch.verb[row]!;
    const span = batch.span[row]!;
    const flags = batch.flags[row]!;
    const first = batch.page[row]!;
    const from = batch.from[row]!;
    this.#checkPages(first, span);
    const isDirect = (flags & FLAG.direct) !== 0;
    const staged = !isDirect && takesBytes(verb, flags);
    const address = isDirect ? from : from + this.#staging.address;
    // As the kernel does while an event is unread: nothing is installed past it.
    if (this.#reader.carrying && verb !== VERB.wake) return batch.settle(row, OUTCOME.again, 0, ERRNO.EAGAIN);
    for (let done = 0; done < span;) {
      const segment = this.#map.at(first + done);
      if (!segment) return this.#nowhere(batch, row, done);
      if (!(segment.verbs & (1 << verb))) return batch.settle(row, OUTCOME.refused, done, 0);
      // Beyond staging other memory of this process may be mapped, which the kernel would install.
      if (staged && !(from >= 0 && from + span * segment.pageSize <= this.staging.length))
        return batch.settle(row, OUTCOME.failed, done, ERRNO.EFAULT, VERBS[verb]);
      const skip = first + done - segment.page;
      const count = Math.min(span - done, segment.count - skip);
      const errno = this.#pages(segment, skip, count, verb, address + done * segment.pageSize, flags);
      done += errno === 0 ? count : Math.floor(this.#bytes / segment.pageSize);
      if (this.#lookFailed) return batch.settle(row, OUTCOME.failed, done, errno, raw.failedCall());
      if (errno !== 0) return this.#settle(batch, row, done, errno, segment);
    }
    batch.settle(row, OUTCOME.installed, span, 0);
  }

  /** Checks the whole row before any part of it is done. */
  #checkPages(page: PageIndex, span: number): void {
    const own = this.#pageRanges.some(({ first, count }) => page >= first && page + span <= first + count);
    if (own && span > 0 && Number.isInteger(page)) return;
    throw new RangeError(`pages ${page}..${page + span - 1} are not all of this port`);
  }

  /** Something else was moved to where the page was: it is gone, as the kernel says of what is unmapped. */
  #nowhere(batch: ResolutionBatch, row: number, done: number): void {
    batch.settle(row, OUTCOME.gone, done, ERRNO.ENOENT);
  }

  #settle(batch: ResolutionBatch, row: number, done: number, errno: number, segment: Segment): void {
    switch (errno) {
      case ERRNO.EEXIST: {
        // the kernel woke nobody
        const woken = this.#uffd.wake(this.#map.addressOf(batch.page[row]! + done), segment.pageSize);
        if (woken < 0) return batch.settle(row, OUTCOME.failed, done, -woken, raw.failedCall());
        return batch.settle(row, OUTCOME['already-present'], done, errno);
      }
      case ERRNO.EAGAIN:
        return batch.settle(row, OUTCOME.again, done, errno);
      case ERRNO.ENOENT:
      case ERRNO.ESRCH:
        return batch.settle(row, OUTCOME.gone, done, errno);
      default:
        return batch.settle(row, OUTCOME.failed, done, errno, raw.failedCall());
    }
  }

  /** Bytes finished by the last {@link #pages} that failed. */
  #bytes = 0;
  /**
   * Whether the last {@link #pages} failed by what asks for the state of memory: then its errno is not the
   * verb's.
   */
  #lookFailed = false;

  /**
   * Carries a verb out on pages of one segment: 0 or a positive errno, with what was done in {@link #bytes}.
   */
  #pages(segment: Segment, skip: number, count: number, verb: number, from: number, flags: number): number {
    const { pageSize: size } = segment;
    const start = segment.start + skip * size;
    this.#lookFailed = false;
    if (verb !== VERB.continue || !(flags & FLAG.fill))
      return this.#bytesOf(verb, start, count * size, from, flags, size);
    this.#filler ??= new PageCacheFiller(pageSize());
    this.#bytes = 0;
    const unmapped = this.#filler.unmapped(start, count, size);
    if (unmapped < 0) {
      this.#lookFailed = true;
      return -unmapped;
    }
    if (unmapped > 0) {
      const filled = this.#filler.fill(segment, skip * size, from, unmapped * size);
      if (filled < 0) return -filled;
      const errno = this.#bytesOf(verb, start, unmapped * size, from, flags, size);
      if (errno !== 0) return errno;
    }
    this.#bytes = unmapped * size;
    return unmapped === count ? 0 : ERRNO.EEXIST;
  }

  /** Most pages of one call: less than everything only after a range was refused. */
  #mostPages = Infinity;

  /**
   * Goes on after partial progress, which the kernel reports as EAGAIN whatever stopped it; the next try
   * names the reason. ENOENT is halved down to the page it is about: the kernel refuses a range as a whole
   * where it leaves a mapping, and whoever treats a part of the memory differently (mprotect, madvise) splits
   * the mapping there.
   */
  #bytesOf(
    verb: number,
    start: number,
    length: number,
    from: number,
    flags: number,
    page_bytes: number,
  ): number {
    for (let done = 0; ;) {
      const asked = Math.min(this.#mostPages * page_bytes, length - done);
      const result = this.#call(verb, start + done, asked, from + done, flags);
      const progress = result === 0 ? asked : this.#uffd.done;
      done += progress;
      this.#bytes = done;
      if (progress > 0) this.#mostPages *= 2;
      if (done >= length) return 0;
      if (progress > 0) continue;
      if (result !== -ERRNO.ENOENT) return -result;
      // A page to move that is not there is not a target that is gone.
      if (verb === VERB.move && !isResident(from + done)) return ERRNO.EFAULT;
      if (asked <= page_bytes) return ERRNO.ENOENT;
      this.#mostPages = Math.floor(asked / page_bytes / 2);
    }
  }

  /** One ioctl: 0 or `-errno`. */
  #call(verb: number, start: number, length: number, from: number, flags: number): number {
    const mode = flags & FLAG.noWake ? DONTWAKE : 0;
    const protect = (flags & FLAG.protect) !== 0;
    switch (verb) {
      case VERB.copy:
        return this.#uffd.copy(start, from, length, mode | (protect ? UFFD_COPY_MODE.WP : 0));
      case VERB.zeropage:
        return this.#uffd.zeropage(start, length, mode);
      case VERB.continue:
        return this.#uffd.continue(start, length, mode | (protect ? UFFD_COPY_MODE.WP : 0));
      case VERB.move:
        return this.#uffd.move(start, from, length, mode);
      case VERB.poison:
        return this.#uffd.poison(start, length, mode);
      // Protecting wakes nobody, and the kernel refuses to be told not to.
      case VERB.writeprotect:
        return this.#uffd.writeprotect(
          start,
          length,
          protect ? UFFD_WRITEPROTECT_MODE.WP : mode && UFFD_WRITEPROTECT_MODE.DONTWAKE,
        );
      case VERB.rwprotect:
        return this.#uffd.rwprotect(
          start,
          length,
          protect ? UFFD_RWPROTECT_MODE.RWP : mode && UFFD_RWPROTECT_MODE.DONTWAKE,
        );
      case VERB.wake:
        return this.#uffd.wake(start, length);
      default:
        return -ERRNO.EINVAL; // not declared by any segment
    }
  }
}

function outcomeOf(errno: number): Outcome {
  if (errno === 0) return 'installed';
  if (errno === ERRNO.EAGAIN) return 'again';
  return errno === ERRNO.ESRCH ? 'gone' : 'failed';
}

function isResident(address: number): boolean {
  try {
    return residentPages(address, pageSize())[0] === 1;
  } catch {
    return false;
  }
}

/**
 * Opens a port in this isolate: the export that a resolver's worker imports.
 * Blocks: never. Errors: NATIVE_UNAVAILABLE, KERNEL (ENOMEM for staging). Requires: the attachment is open.
 */
export const openUserfaultfdPort = (token: UserfaultfdPortToken): UserfaultfdPort =>
  new UserfaultfdPort(token);
