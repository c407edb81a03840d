import {
  DemandPagingError,
  type FaultBatch,
  type FaultPort,
  FLAG,
  OUTCOME,
  type PageIndex,
  type PageRange,
  type ResolutionBatch,
  type Supports,
  takesBytes,
  VERB,
  VERBS,
  type Verb,
} from '../../api/index.js';
import { ERRNO } from './errno.js';
import { type ModelKernel } from './model-kernel.js';

/**
 * The resolver's end of a {@link ModelKernel}: the kernel's outcomes, per row, from its answers, per page.
 */
export class ModelPort implements FaultPort {
  readonly staging: Uint8Array;
  readonly #kernel: ModelKernel;
  readonly #supports: Supports;
  #wakeUp: (() => void) | undefined;
  #closed = false;

  constructor(kernel: ModelKernel, supports: Supports, staging_bytes: number) {
    this.#kernel = kernel;
    this.#supports = supports;
    this.staging = new Uint8Array(staging_bytes);
    kernel.queue.onMessage = () => this.#wakeUp?.();
  }

  /** Never blocks, whatever `wait` says: everything here shares one thread, and a spurious 0 is allowed. */
  take(batch: FaultBatch): number {
    this.#kernel.queue.kicked = false;
    if (this.#closed) return 0;
    if (this.#kernel.isGone)
      throw new DemandPagingError('MEMORY_GONE', 'the process whose memory is served has ended', {
        errno: ERRNO.ESRCH,
      });
    const before = batch.count;
    while (!batch.full) {
      this.#kernel.preempt(false);
      const got = this.#kernel.queue.readInto(batch);
      if (typeof got === 'number') throw new DemandPagingError('UNKNOWN_EVENT', `an event of kind ${got}`);
      if (!got) break;
    }
    return batch.count - before;
  }

  async ready(): Promise<void> {
    if (this.#kernel.queue.hasWork || this.#closed) return;
    await new Promise<void>((resolve) => (this.#wakeUp = resolve));
    this.#wakeUp = undefined;
  }

  /** Memory is watched as soon as it is there. */
  addRegions(): void {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the port was closed');
  }

  /** As memory that goes at once: who waits finds none. */
  removeRegion(pages: PageRange): void {
    for (let page = pages.first; page < pages.first + pages.count; page++) this.#kernel.unmapPage(page);
    this.#kernel.queue.wake(pages);
  }

  resolve(batch: ResolutionBatch): void {
    for (let row = 0; row < batch.count; row++) this.#row(batch, row);
  }

  resident(page: PageIndex): boolean {
    return this.#kernel.memory.isMapped(page);
  }

  close(): void {
    this.#closed = true;
    this.#wakeUp?.();
  }

  #row(batch: ResolutionBatch, row: number): void {
    const verb = VERBS[batch.verb[row]!]!;
    const flags = batch.flags[row]!;
    const page = batch.page[row]!;
    const span = batch.span[row]!;
    if (this.#closed || !this.#supports.verbs.includes(verb) || flags & FLAG.direct)
      return batch.settle(row, OUTCOME.refused, 0);
    const bytes = this.#checked(verb, page, span, batch.from[row]!, flags);
    if (bytes === undefined) return batch.settle(row, OUTCOME.failed, 0, ERRNO.EINVAL);
    const pages = { first: page, count: span };
    if (verb === 'wake' || verb === 'fail') {
      if (verb === 'wake') this.#kernel.queue.wake(pages);
      else this.#kernel.queue.fail(pages, ERRNO.EFAULT);
      return batch.settle(row, OUTCOME.installed, span);
    }
    this.#pages(batch, row, verb, bytes);
  }

  /** Goes from page to page until one cannot be done. */
  #pages(batch: ResolutionBatch, row: number, verb: Verb, bytes: Uint8Array): void {
    const { memory, queue } = this.#kernel;
    const first = batch.page[row]!;
    const span = batch.span[row]!;
    const flags = batch.flags[row]!;
    const protect = (flags & FLAG.protect) !== 0;
    const size = memory.pageSize(first);
    const contentsOf = (at: number): Uint8Array | undefined =>
      bytes.length > 0 ? bytes.subarray(at * size, (at + 1) * size) : undefined;
    let errno = 0;
    let most = span;
    if (verb === 'continue' && bytes.length > 0) {
      // Contents are written behind the mapping, up to the first page that it has; only then does the kernel
      // have a say.
      for (most = 0; most < span && errno === 0 && !memory.isTaken(first + most); most++)
        errno = memory.fill(first + most, contentsOf(most)!);
    }
    let done = 0;
    for (; done < most && errno === 0; done += errno === 0 ? 1 : 0) {
      this.#kernel.preempt(this.#kernel.isChanging);
      const contents = contentsOf(done);
      errno = this.#kernel.resolvePage({ verb, page: first + done, bytes: contents, protect });
    }
    if (errno === 0 && done < span) errno = ERRNO.EEXIST;
    const wakes = verb === 'writeprotect' || verb === 'rwprotect' ? !protect : true;
    if (done > 0 && wakes && !(flags & FLAG.noWake)) queue.wake({ first, count: done });
    // The kernel wakes nobody on EEXIST; the port's contract is that it does.
    if (errno === ERRNO.EEXIST) queue.wake({ first: first + done, count: 1 });
    batch.settle(row, outcomeOf(errno), done, errno);
  }

  /** The bytes that a row brings (empty for none), or undefined where the row is malformed. */
  #checked(verb: Verb, page: PageIndex, span: number, from: number, flags: number): Uint8Array | undefined {
    const { layout } = this.#kernel.memory;
    if (!(
      Number.isInteger(page) &&
      Number.isInteger(span) &&
      page >= 0 &&
      span >= 1 &&
      page + span <= layout.pageCount
    ))
      return undefined;
    const region = layout.regionOf(page);
    if (page + span > region.firstPage + region.pageCount) return undefined;
    if (!takesBytes(VERB[verb], flags)) return new Uint8Array(0);
    const length = span * region.pageSize;
    if (!(Number.isInteger(from) && from >= 0 && from + length <= this.staging.length)) return undefined;
    return this.staging.subarray(from, from + length);
  }
}

/** As a port answers: what was done counts, and the error is that of the page behind it. */
function outcomeOf(errno: number): number {
  if (errno === 0) return OUTCOME.installed;
  if (errno === ERRNO.EAGAIN) return OUTCOME.again;
  if (errno === ERRNO.EEXIST) return OUTCOME['already-present'];
  if (errno === ERRNO.ENOENT || errno === ERRNO.ESRCH) return OUTCOME.gone;
  return OUTCOME.failed;
}
