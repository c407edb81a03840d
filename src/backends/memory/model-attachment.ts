import {
  type AddedRegions,
  type Attachment,
  type Coverage,
  DemandPagingError,
  type Gpa,
  type MemoryLayout,
  type PageRange,
  type PageStates,
  type RawMemory,
  type Region,
  type Shard,
  type Supports,
} from '../../api/index.js';
import { ERRNO } from './errno.js';
import { type ModelKernel } from './model-kernel.js';
import { settleModel } from './model-contents.js';
import { ModelPort } from './model-port.js';
import { refuseForeign } from './refuse-foreign.js';
import { settle } from './stepper.js';

export interface ModelAttachmentParts {
  readonly kernel: ModelKernel;
  readonly coverage: Coverage;
  readonly supports: Supports;
  readonly staging_bytes: number;
}

/** A model kernel bound to a layout: what {@link memoryBackend} attaches. */
export class ModelAttachment implements Attachment {
  /** The kernel behind it: accesses, changes of memory, and the scheduler's seam. */
  readonly kernel: ModelKernel;
  readonly layout: MemoryLayout;
  readonly coverage: Coverage;
  readonly supports: Supports;
  readonly shards: readonly Shard[];
  readonly memory: RawMemory;
  /** The one port that {@link shards} opens. */
  readonly port: ModelPort;
  #closed = false;

  constructor({ kernel, coverage, supports, staging_bytes }: ModelAttachmentParts) {
    this.kernel = kernel;
    this.layout = kernel.memory.layout;
    this.coverage = coverage;
    this.supports = supports;
    this.port = new ModelPort(kernel, supports, staging_bytes);
    this.shards = [
      {
        pages: { first: 0, count: this.layout.pageCount },
        port: { where: 'here', open: () => this.port },
        kick: () => kernel.queue.kick(),
      },
    ];
    this.memory = {
      load: (address, into) => this.#copy(address, into, (frame, part) => part.set(frame)),
      store: (address, from) => this.#copy(address, from, (frame, part) => frame.set(part)),
    };
  }

  /**
   * Discards the pages as a thread of the VMM would; resolves when the resolver has read the event and they
   * are gone.
   */
  async discard(pages: PageRange): Promise<void> {
    if (!this.supports.discard)
      throw new DemandPagingError('NOT_SUPPORTED', 'this model does not discard pages');
    await settle(this.kernel.discardEverywhere(pages));
  }

  addRegions(regions: readonly Region[], states?: PageStates): AddedRegions {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the attachment was closed');
    refuseForeign(regions);
    const kinds = new Set(this.layout.regions.map(({ memory }) => memory));
    for (const { memory, pageSize } of regions) {
      if (!kinds.has(memory))
        throw new DemandPagingError('NOT_SUPPORTED', `there is no other ${memory} memory`);
      if (pageSize > this.port.staging.length)
        throw new DemandPagingError('NOT_SUPPORTED', `pages of ${pageSize} bytes do not fit in staging`);
    }
    this.kernel.memory.extend(regions);
    if (states) settleModel(this.kernel.memory, regions, states);
    return { regions, shard: 0, token: undefined };
  }

  removeRegions(regions: readonly Region[]): void {
    for (const { firstPage, pageCount } of regions)
      this.port.removeRegion({ first: firstPage, count: pageCount });
  }

  /** Nothing to follow: pages are found by number here. */
  moved(): void {}

  abandonChild(fd: number): void {
    const child = this.kernel.children.get(fd);
    if (!child) return;
    this.kernel.children.delete(fd);
    for (let page = 0; page < this.layout.pageCount; page++) child.memory.poison(page);
    child.release();
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.port.close();
    this.kernel.release();
    // A thread that was left waiting goes on between the two, as it would in the kernel.
    this.kernel.preempt(false);
    for (let page = 0; page < this.layout.pageCount; page++) this.kernel.unmapPage(page);
  }

  /**
   * Straight to the frames, as through a mapping; this thread can wait for nobody, so it fails where others
   * would block.
   */
  #copy(address: Gpa, buffer: Uint8Array, each: (frame: Uint8Array, part: Uint8Array) => void): void {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the memory was closed');
    const { memory } = this.kernel;
    for (const { first, count } of this.layout.pagesOf({ start: address, length: BigInt(buffer.length) })) {
      const size = memory.pageSize(first);
      let at = this.layout.gpaOf(first) as bigint;
      for (let page = first; page < first + count; page++, at += BigInt(size)) {
        const from = Math.max(0, Number(address - at));
        const to = Math.min(size, Number(address - at) + buffer.length);
        const start = Number(at - address) + from;
        each(this.#frame(page).subarray(from, to), buffer.subarray(start, start + to - from));
      }
    }
  }

  #frame(page: number): Uint8Array {
    const { memory } = this.kernel;
    const obstacle = memory.obstacle(page, false);
    const frame = memory.mappedFrame(page);
    if (frame && typeof obstacle !== 'number') return frame;
    const { start, length } = this.layout.gpaRangeOf({ first: page, count: 1 });
    const code =
      obstacle === ERRNO.EHWPOISON
        ? 'PAGE_POISONED'
        : obstacle === ERRNO.EFAULT
          ? 'MEMORY_GONE'
          : 'PAGE_MISSING';
    throw new DemandPagingError(code, `page ${page} cannot be reached`, { range: { start, length } });
  }
}
