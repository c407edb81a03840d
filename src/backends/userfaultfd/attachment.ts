import { type PageRange } from '../../api/address.js';
import { type Coverage } from '../../api/access.js';
import { type Attachment, type RawMemory, type Shard } from '../../api/backend.js';
import { type Supports } from '../../api/capability.js';
import { DemandPagingError } from '../../api/error.js';
import { type MemoryLayout } from '../../api/layout.js';
import { endWith, ERRNO, FALLOC, MADV, raw, systemError, type Userfaultfd } from '../../linux/index.js';
import { abandon } from './abandoned-child.js';
import { type AddressMap, type Segment } from './address-map.js';
import { type Kicker } from './kick.js';
import { type UserfaultfdPortToken } from './port-token.js';
import { type LocalMemory } from './raw-memory.js';
import { giveBack, type RegionMemory } from './region-memory.js';

/** The module that a resolver's worker imports to open a port. */
const PORT_MODULE = 'demand-paging/backends/userfaultfd';

/** One userfaultfd with its share of the pages. */
export interface OpenShard {
  readonly pages: PageRange;
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
  /** In region order; none for memory of another process. */
  readonly regions: readonly RegionMemory[];
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

  constructor(parts: AttachmentParts) {
    this.#parts = parts;
    this.layout = parts.layout;
    this.coverage = parts.coverage;
    this.supports = parts.supports;
    this.memory = parts.memory;
    this.shards = parts.shards.map((shard) => shardOf(shard, parts.map));
    this.#forget = parts.memory ? endWith(this) : () => {};
  }

  withdraw(pages: PageRange): void {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the attachment was closed');
    if (!this.supports.withdraw)
      throw new DemandPagingError(
        'NOT_SUPPORTED',
        'the memory of another process cannot be dropped from here',
      );
    for (const segment of this.#parts.map.within(pages)) drop(segment);
  }

  removalsAnnounced(pages: PageRange): number {
    return Math.max(
      1,
      ...[...this.#parts.map.within(pages)].map((segment) => (isRemovedTwice(segment) ? 2 : 1)),
    );
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

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const { shards, regions, map, memory } = this.#parts;
    memory?.close();
    // Unregistered first, so that unmapping raises no event that somebody would have to read.
    for (const { uffd, pages } of shards) {
      if (memory)
        for (const { start, count, pageSize } of map.within(pages))
          uffd.port.unregister(start, count * pageSize);
      uffd.close();
    }
    for (const { kicker, token } of shards) {
      kicker.close();
      if (token.process !== undefined) raw.close(token.process);
    }
    regions.forEach((region, i) => giveBack(region, this.#pieces(i)));
    this.#forget();
  }

  /** Where a region's memory is now: it may have been moved in parts. */
  #pieces(index: number): { start: number; length: number }[] {
    const { firstPage, pageCount } = this.layout.regions[index]!;
    const segments = this.#parts.map.within({ first: firstPage, count: pageCount });
    return segments.map(({ start, count, pageSize }) => ({ start, length: count * pageSize }));
  }
}

function shardOf({ pages, kicker, token }: OpenShard, map: AddressMap): Shard {
  return {
    pages,
    // Made when it is asked for: a port that is opened late must know where the memory is by then.
    get port() {
      const segments = map.within(pages);
      return {
        where: 'worker' as const,
        module: PORT_MODULE,
        export: 'openUserfaultfdPort',
        token: { ...token, segments },
      };
    },
    kick: () => kicker.kick(),
  };
}

/** Of a file that is not known both calls of {@link drop} are madvise, which raises an event. */
const isRemovedTwice = ({ memory, fd }: Segment): boolean => memory !== 'anonymous' && fd < 0;

/**
 * Drops pages so that the next access is a *missing* fault. Private memory forgets them by MADV_DONTNEED. Of a
 * file they are punched out, because the mapping alone forgetting them leaves the page cache to serve them
 * again; then the mapping forgets, because a hole leaves poison and protection marks where they are.
 */
function drop(segment: Segment): void {
  const { start, count, pageSize, fd, fileOffset, memory } = segment;
  const length = count * pageSize;
  const range = { start: BigInt(start), length: BigInt(length) };
  const must = (result: number, syscall: string): void => {
    if (result < 0) throw systemError(syscall, -result, 'the pages cannot be dropped', { range });
  };
  if (memory !== 'anonymous') {
    if (fd >= 0)
      must(raw.fallocate(fd, FALLOC.PUNCH_HOLE | FALLOC.KEEP_SIZE, fileOffset, length), 'fallocate');
    else {
      const removed = raw.madvise(start, length, MADV.REMOVE);
      // Private huge pages have no file to remove from, or none that may be.
      const isPrivate = removed === -ERRNO.EINVAL || removed === -ERRNO.EACCES;
      if (!(isPrivate && memory === 'hugetlb')) must(removed, 'madvise');
    }
  }
  must(raw.madvise(start, length, MADV.DONTNEED), 'madvise');
}
