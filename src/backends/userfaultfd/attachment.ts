import { abandonChild } from '../../api/abandoned-child.js';
import { hex, type PageIndex, type PageRange } from '../../api/address.js';
import { type Coverage } from '../../api/access.js';
import { type AddedRegions, type Attachment, type RawMemory, type Shard } from '../../api/backend.js';
import { type Supports } from '../../api/capability.js';
import { DemandPagingError } from '../../api/error.js';
import { type MemoryLayout, type Region } from '../../api/layout.js';
import { intersection, without } from '../../api/page-range.js';
import { PageStates } from '../../api/page-states.js';
import {
  check,
  checkPlaces,
  decodeUffdEvent,
  discardMemoryLater,
  endWith,
  EventLoopReader,
  libc,
  MAP,
  MFD,
  PROT,
  raw,
  UFFD_MSG_BYTES,
  UFFD_MSG_WORDS,
  type Userfaultfd,
} from '../../linux/index.js';
import { abandon } from './abandoned-child.js';
import { type AddressMap, type Segment, segmentOf } from './address-map.js';
import { type Kicker } from './kick.js';
import { type AddedRegionsToken, type UserfaultfdPortToken } from './port-token.js';
import { type LocalMemory } from './raw-memory.js';
import {
  bringMemory,
  checkForeign,
  checkNamed,
  checkRegion,
  giveBack,
  placeOf,
  placesOf,
  type RegionMemory,
} from './region-memory.js';
import { RegionContents } from './region-contents.js';
import { maskOf } from './verb-mask.js';

/** The module that a resolver's worker imports to open a port. */
const PORT_MODULE = 'demand-paging/backends/userfaultfd';

/** One userfaultfd with its share of the pages. */
export interface OpenShard {
  /** They change with the regions. */
  readonly pages: PageRange[];
  readonly uffd: Userfaultfd;
  readonly kicker: Kicker;
  readonly token: UserfaultfdPortToken;
}

export interface AttachmentParts {
  readonly layout: MemoryLayout;
  readonly coverage: Coverage;
  readonly supports: Supports;
  readonly shards: readonly OpenShard[];
  readonly map: AddressMap;
  readonly memory: LocalMemory | undefined;
  /** By a region's first page; none for memory of another process. */
  readonly regions: Map<PageIndex, RegionMemory>;
  /** How regions that are added are registered; undefined where another process has done so. */
  readonly mode: number | undefined;
  /** Looks at what regions of another process have, beside others; undefined for memory of this one. */
  readonly settleForeign:
    ((states: PageStates, regions: readonly Region[], others: readonly Region[]) => void) | undefined;
}

/** Memory under userfaultfds of this process, or of another that passed one here. */
export class UserfaultfdAttachment implements Attachment {
  readonly layout: MemoryLayout;
  readonly coverage: Coverage;
  readonly supports: Supports;
  readonly shards: readonly Shard[];
  readonly memory: RawMemory | undefined;
  readonly #parts: AttachmentParts;
  readonly #forget: () => void;
  #closed = false;
  /** The userfaultfds are the caller's again. */
  #handedBack = false;

  constructor(parts: AttachmentParts) {
    this.#parts = parts;
    this.layout = parts.layout;
    this.coverage = parts.coverage;
    this.supports = parts.supports;
    this.memory = parts.memory;
    this.shards = parts.shards.map((shard) => shardOf(shard, parts.map));
    this.#forget = parts.memory ? endWith() : () => {};
  }

  async discard(pages: PageRange): Promise<void> {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the attachment was closed');
    if (!this.supports.discard)
      throw new DemandPagingError(
        'NOT_SUPPORTED',
        'the memory of another process cannot be discarded from here',
      );
    const end = pages.first + pages.count;
    // Looked up one by one: memory may be moved meanwhile.
    for (let at = pages.first; at < end;) {
      const [segment] = this.#parts.map.within({ first: at, count: end - at });
      if (!segment) return;
      await drop(segment);
      at = segment.page + segment.count;
    }
  }

  removeEventsPerDiscard(pages: PageRange): number {
    return Math.max(
      1,
      ...[...this.#parts.map.within(pages)].map((segment) => (isRemovedTwice(segment) ? 2 : 1)),
    );
  }

  addRegions(
    regions: readonly Region[],
    states = PageStates.create(regions.at(-1)!.firstPage + regions.at(-1)!.pageCount),
  ): AddedRegions {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the attachment was closed');
    const { mode, settleForeign } = this.#parts;
    const kinds = new Set(this.layout.regions.map(({ memory }) => memory));
    for (const region of regions) {
      if (mode === undefined) checkForeign(region);
      else checkRegion(region);
      if (kinds.has(region.memory)) continue;
      throw new DemandPagingError(
        'NOT_SUPPORTED',
        `the region at ${hex(region.gpa)}: there is no other ${region.memory} memory`,
        { hint: 'What the kernel is asked for depends on the kinds of memory that the pager is opened with' },
      );
    }
    settleForeign?.(states, regions, this.layout.regions);
    const brought = mode === undefined ? new Map<PageIndex, RegionMemory>() : this.#bring(regions, states);
    return this.#added(regions, brought);
  }

  #bring(regions: readonly Region[], states: PageStates): Map<PageIndex, RegionMemory> {
    const brought = new Map<PageIndex, RegionMemory>();
    try {
      for (const region of regions) {
        const memory = bringMemory(region);
        brought.set(region.firstPage, memory);
        if (this.supports.fill) checkNamed(region, memory);
      }
      this.#checkPlaces(regions, [...brought.values()]);
      settleAdded(regions, [...brought.values()], states);
      return brought;
    } catch (error) {
      for (const region of regions) {
        const memory = brought.get(region.firstPage);
        if (memory) giveBack(memory, [{ start: memory.start, length: Number(region.length) }]);
      }
      throw error;
    }
  }

  /** Beside the regions that are there, wherever they have moved to. */
  #checkPlaces(regions: readonly Region[], brought: readonly RegionMemory[]): void {
    const there = this.layout.regions.filter(({ hva }) => hva !== undefined);
    const memory = there.map(({ firstPage }) => this.#parts.regions.get(firstPage)!);
    const others = placesOf(there, memory).map((place) => ({ ...place, file: undefined }));
    checkPlaces([...others, ...placesOf(regions, brought)]);
  }

  #added(regions: readonly Region[], brought: ReadonlyMap<PageIndex, RegionMemory>): AddedRegions {
    const { shards, map, mode } = this.#parts;
    const pages = regions.map(({ firstPage: first, pageCount: count }) => ({ first, count }));
    const segments = regions.map((region, i): Segment => {
      const memory = brought.get(region.firstPage);
      const start = memory?.start ?? Number(region.hva);
      const segment = segmentOf(region, start, memory?.fd, memory?.fileOffset ?? 0, pages[i]!)!;
      const zeropage = region.memory !== 'hugetlb';
      return {
        ...segment,
        verbs: maskOf(this.supports.verbs.filter((verb) => zeropage || verb !== 'zeropage')),
      };
    });
    const sizes = shards.map((shard) => shard.pages.reduce((sum, { count }) => sum + count, 0));
    const shard = sizes.indexOf(Math.min(...sizes));
    map.add(segments);
    shards[shard]!.pages.push(...pages);
    for (const [first, memory] of brought) this.#parts.regions.set(first, memory);
    const token: AddedRegionsToken = { pages, segments, mode, features: shards[shard]!.uffd.enabled };
    return {
      regions: regions.map((region) => {
        const memory = brought.get(region.firstPage);
        return memory ? { ...region, ...placeOf(memory) } : region;
      }),
      shard,
      token,
    };
  }

  removeRegions(removed: readonly Region[]): void {
    if (this.#closed) return;
    const { shards, map, regions, memory } = this.#parts;
    for (const { firstPage, pageCount } of removed) {
      const pages = { first: firstPage, count: pageCount };
      for (const shard of shards) {
        // What its port has unregistered is refused; a port that has died has not.
        if (memory)
          for (const each of shard.pages.flatMap((own) => intersection(own, pages)))
            unregister(shard.uffd, map.within(each));
        shard.pages.splice(0, shard.pages.length, ...shard.pages.flatMap((each) => without(each, pages)));
      }
      const brought = regions.get(firstPage);
      if (brought) giveBack(brought, this.#pieces(pages));
      regions.delete(firstPage);
      map.forget(pages);
    }
  }

  moved(pages: PageRange, to: number): void {
    this.#parts.map.movePages(pages, to);
  }

  unmapped(pages: PageRange): void {
    this.#parts.map.forget(pages);
  }

  abandonChild(fd: number): void {
    if (!this.supports.verbs.includes('poison')) {
      throw new DemandPagingError(
        'NOT_SUPPORTED',
        "without poison a child's missing pages would read as zeros",
        {
          hint: "Take the child's descriptor over (onFork: 'hand-over')",
        },
      );
    }
    abandon(fd, this.#parts.map.segments, this.supports.verbs.includes('writeprotect'));
  }

  handBack(): void {
    this.#handedBack = !this.#parts.memory;
  }

  /** There where all of the memory was mapped here. */
  get revoke(): (() => Promise<void>) | undefined {
    const { memory, regions } = this.#parts;
    const isOwn = memory !== undefined && [...regions.values()].every(({ mapped }) => mapped);
    return isOwn ? () => this.#revoke() : undefined;
  }

  async close(): Promise<void> {
    this.release();
  }

  /** {@link close}, which has nothing to wait for. */
  release(): void {
    if (this.#closed) return;
    this.#closed = true;
    const { shards, regions, map, memory } = this.#parts;
    memory?.close();
    for (const { uffd, pages } of shards) {
      // Unregistered first, so that unmapping raises no event that nothing reads.
      if (memory) for (const each of pages) unregister(uffd, map.within(each));
      if (this.#handedBack) uffd.port.close();
      else uffd.close();
    }
    for (const { kicker, token } of shards) {
      kicker.close();
      if (token.process !== undefined) raw.close(token.process);
    }
    for (const [first, region] of regions)
      giveBack(region, this.#pieces({ first, count: this.layout.regionOf(first).pageCount }));
    this.#forget();
  }

  /**
   * Takes the memory away under waiting accesses, and then wakes them: what they touch again fails, and
   * cannot be zeros or anything else. An empty file takes its place, of which every access is past the end:
   * SIGBUS for a thread of this process, EFAULT for the kernel and other processes, for those that ignore
   * protection (ptrace, /proc/pid/mem), too. Were the addresses free meanwhile, another mapping could come
   * there before the last waiter has looked.
   *
   * It costs nothing for memory that is missing, where poison is a page-table entry for each page. The kernel
   * reports it as an unmapping, and the call waits until that is read: it is made on a thread of libuv's
   * pool, while this event loop reads. All threads of the pool may wait in system calls for this very memory;
   * so those are let go first, by taking their permission: that is no unmapping, and who ignores protection
   * waits on.
   */
  async #revoke(): Promise<void> {
    const { shards, map, memory } = this.#parts;
    memory?.close();
    const segments = shards.flatMap(({ uffd, pages }) =>
      pages
        .flatMap((each) => map.within(each))
        .map(({ start, count, pageSize }) => ({ uffd, start, length: count * pageSize })),
    );
    const readers = shards.map(({ uffd }) => this.#readOn(uffd));
    try {
      const made = libc().memfd_create('demand-paging: gone', MFD.CLOEXEC);
      const empty = check(made === -1 ? -libc().errno() : made, 'memfd_create', 'no memory file can be made');
      try {
        for (const { uffd, start, length } of segments) {
          raw.mprotect(start, length, PROT.NONE);
          uffd.wake(start, length);
        }
        for (const { uffd, start, length } of segments) {
          await cover(start, length, empty);
          uffd.wake(start, length);
        }
      } finally {
        raw.close(empty);
      }
    } finally {
      for (const reader of readers) reader.close();
    }
  }

  /**
   * Reads messages on this event loop, though nothing is served any more: what raised an event waits until it
   * is read.
   */
  #readOn({ fd }: Userfaultfd): EventLoopReader {
    const words = new Uint32Array(UFFD_MSG_WORDS * 16);
    const reader = new EventLoopReader(fd, new Uint8Array(words.buffer), (bytes) => {
      for (let message = 0; message < bytes / UFFD_MSG_BYTES; message++) this.#heardAtEnd(words, message);
      return true;
    });
    reader.resume();
    return reader;
  }

  #heardAtEnd(words: Uint32Array, message: number): void {
    const event = decodeUffdEvent(words, message);
    if (event.kind === 'fork') abandonChild(this, event.fd);
  }

  /** Where a region's memory is now: it may have been moved in parts. */
  #pieces(pages: PageRange): { start: number; length: number }[] {
    const segments = this.#parts.map.within(pages);
    return segments.map(({ start, count, pageSize }) => ({ start, length: count * pageSize }));
  }
}

/**
 * The memory is not watched yet, and nobody accesses it before it is: looked at once, it stays as it was
 * found.
 */
function settleAdded(regions: readonly Region[], memory: readonly RegionMemory[], states: PageStates): void {
  const contents = new RegionContents(regions, memory, states);
  try {
    contents.settle(
      () => {},
      () => {},
    );
  } finally {
    contents.close();
  }
}

/** Maps an empty file over memory. Throws KERNEL. */
async function cover(start: number, length: number, empty: number): Promise<void> {
  const flags = MAP.SHARED | MAP.FIXED | MAP.NORESERVE;
  const mapped = await libc().mmapAsync(start, length, PROT.READ | PROT.WRITE, flags, empty, 0);
  if (mapped !== -1) return;
  throw new DemandPagingError('KERNEL', 'the memory cannot be taken away; accesses wait', {
    syscall: 'mmap',
    range: { start: BigInt(start), length: BigInt(length) },
  });
}

function unregister(uffd: Userfaultfd, segments: readonly Segment[]): void {
  for (const { start, count, pageSize } of segments) uffd.port.unregister(start, count * pageSize);
}

function shardOf({ pages, kicker, token }: OpenShard, map: AddressMap): Shard {
  return {
    pages: pages[0]!,
    // Made when it is asked for: a port that is opened late must know where the memory is by then.
    get port() {
      const segments = pages.flatMap((each) => map.within(each));
      return {
        where: 'worker' as const,
        module: PORT_MODULE,
        export: 'openUserfaultfdPort',
        token: { ...token, pages: [...pages], segments },
      };
    },
    kick: () => kicker.kick(),
  };
}

/** Of a file that is not known both calls of {@link drop} are madvise, which raises an event. */
const isRemovedTwice = ({ memory, fd }: Segment): boolean => memory !== 'anonymous' && fd < 0;

function drop({ start, count, pageSize, fd, fileOffset, memory }: Segment): Promise<void> {
  const file = fd < 0 ? undefined : { fd, offset: fileOffset };
  return discardMemoryLater({ address: start, length: count * pageSize, memory, file });
}
