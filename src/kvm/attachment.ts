import { type PageIndex, type PageRange } from '../api/address.js';
import { type Coverage } from '../api/access.js';
import { type Attachment, type RawMemory, type Shard } from '../api/backend.js';
import { type Supports } from '../api/capability.js';
import { DemandPagingError } from '../api/error.js';
import { type MemoryLayout } from '../api/layout.js';
import {
  endWith,
  ERRNO,
  type EventFd,
  pageSize,
  raw,
  type SharedBits,
  systemError,
  TRANSPARENT_HUGE_BYTES,
  transparentHugePages,
  UFFD_EVENT,
  UFFD_FEATURE,
  type UffdPort,
  UffdArrivals,
  type Userfaultfd,
} from '../linux/index.js';
import { type ExitBoard } from './exit-board.js';
import { type ExitPortToken } from './exit-port.js';
import { HostMemory } from './host-memory.js';
import { showFile } from './installer.js';
import { type PagedRegion } from './paged-memory.js';
import { type SlotClient } from './slot-client.js';
import { type Sweep, sweepSlots } from './sweep-slots.js';

/** The module that a resolver's worker imports to open a port. */
const PORT_MODULE = 'demand-paging/kvm';
/** How long an event may lie unread while the slot thread waits for its being read. */
const EVENTS_EVERY_MS = 100;

export interface KvmAttachmentParts {
  readonly layout: MemoryLayout;
  readonly coverage: Coverage;
  readonly supports: Supports;
  readonly board: ExitBoard;
  readonly doorbell: EventFd;
  readonly regions: readonly PagedRegion[];
  readonly uffd: Userfaultfd | undefined;
  readonly client: SlotClient;
  /** For a userfault bitmap: a region's each. */
  readonly bitmaps: readonly SharedBits[] | undefined;
  /** How to take away what a slot thread that died has left; `vm` is closed in the end. */
  readonly sweep: Sweep;
  /** The memory is the VMM's and outlives the attachment: what is present stays visible to the guest. */
  readonly keep: boolean;
  readonly verbs: number;
  readonly staging_bytes: number;
}

/** Memory whose missing pages stop vCPUs by exits of KVM_RUN, and others by a userfaultfd where there is one. */
export class KvmAttachment implements Attachment {
  readonly layout: MemoryLayout;
  readonly coverage: Coverage;
  readonly supports: Supports;
  readonly shards: readonly Shard[];
  readonly memory: RawMemory;
  readonly #parts: KvmAttachmentParts;
  readonly #host: HostMemory;
  readonly #forget: () => void;
  #closed = false;

  constructor(parts: KvmAttachmentParts) {
    this.#parts = parts;
    this.layout = parts.layout;
    this.coverage = parts.coverage;
    this.supports = parts.supports;
    const slots = parts.regions.map(({ slot }) => slot);
    this.memory = this.#host = new HostMemory(parts.layout, slots, parts.board, parts.uffd !== undefined);
    // A vCPU's wait is one that Node can end; a thread in a page fault is not.
    this.#forget = parts.uffd ? endWith() : () => {};
    const { board, doorbell } = parts;
    this.shards = [
      {
        pages: { first: 0, count: parts.layout.pageCount },
        port: { where: 'worker', module: PORT_MODULE, export: 'openExitPort', token: portToken(parts) },
        kick: () => {
          board.kick();
          doorbell.ring();
        },
      },
    ];
  }

  get failure(): Promise<DemandPagingError> {
    return this.#parts.client.failure;
  }

  /** What is frozen goes out of the guest's sight, and nothing of its contents is lost. */
  async freeze(pages: PageRange): Promise<void> {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the attachment was closed');
    const { board, client } = this.#parts;
    for (const range of runsOf(pages, (page) => board.has('filled', page)))
      await this.#readingEvents(client.hide(range));
  }

  /**
   * A vCPU stands only when no access of KVM's in it waits for a page: while pages are held back it could wait for one of
   * them, and the slot thread for it. Without a userfaultfd no such access waits.
   */
  quiesce<T>(body: () => Promise<T>, signal: AbortSignal): Promise<T> {
    return this.#parts.uffd ? this.#parts.client.quiesce(body, signal) : body();
  }

  async withdraw(pages: PageRange): Promise<void> {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the attachment was closed');
    // What is neither there nor poisoned need not go.
    const { board, client } = this.#parts;
    const runs = runsOf(pages, (page) => board.has('filled', page) || board.has('poisoned', page));
    for (const range of runs) await this.#readingEvents(client.drop(range));
  }

  /**
   * Takes part in reading the userfaultfd while the slot thread may wait for somebody to have read an event. The resolver
   * does, unless it has died, or is in a source that does not come back. A fault that is read here is made to come again.
   */
  async #readingEvents(change: Promise<void>): Promise<void> {
    const { uffd, regions } = this.#parts;
    if (!uffd || regions.every(({ alias }) => alias === undefined)) return change;
    const { port } = uffd;
    const read = (): void => {
      for (let count = port.read(); count > 0; count = port.read())
        for (let index = 0; index < count; index++) this.#wakeFault(port, index);
    };
    const timer = setInterval(read, EVENTS_EVERY_MS);
    try {
      await change;
    } finally {
      clearInterval(timer);
    }
  }

  #wakeFault(port: UffdPort, index: number): void {
    if (port.eventNumber(index) !== UFFD_EVENT.PAGEFAULT) return;
    const address = port.faultAddress(index);
    port.wake(address - (address % pageSize()), pageSize());
  }

  /** vCPUs are shown it when they ask. What lives in a file is mapped where the others look for it. */
  markPresent(pages: PageRange): void {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the attachment was closed');
    const { regions, board } = this.#parts;
    const { slot, alias } = regions.find(
      ({ slot: { page, count } }) => pages.first >= page && pages.first < page + count,
    )!;
    const errno = alias === undefined ? 0 : showFile(slot, pages.first, pages.count);
    // For want of mappings they stay hidden, until somebody asks for them.
    if (errno !== 0 && errno !== ERRNO.ENOMEM)
      throw systemError('mmap', errno, 'pages that are present cannot be shown');
    board.mark('filled', pages.first, pages.count, true); // after they can be found
  }

  moved(): void {
    // no remap events are asked for: the slots would not follow
  }

  abandonChild(fd: number): void {
    raw.close(fd); // the memory is not inherited, so no fork is ever reported
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#host.close();
    try {
      // Unregistered first, so that no waiter is left: the slot thread would wait for one inside KVM_RUN.
      this.#unregister();
      await this.#endSlots();
    } finally {
      this.#giveBack();
    }
  }

  #unregister(): void {
    const { uffd, regions, board } = this.#parts;
    if (!uffd) return;
    for (const { slot } of regions) {
      const { page: first, count, pageSize, address } = slot;
      const unregister = (pages: PageRange): boolean =>
        uffd.port.unregister(address + (pages.first - first) * pageSize, pages.count * pageSize) === 0;
      if (unregister({ first, count })) continue;
      // Where files lie over a part of the reservation the kernel refuses the whole: what is not there is left of it.
      const isReserved = (page: PageIndex): boolean =>
        !board.has('filled', page) || board.has('frozen', page);
      for (const run of runsOf({ first, count }, isReserved))
        if (!unregister(run))
          for (let page = run.first; page < run.first + run.count; page++)
            unregister({ first: page, count: 1 });
    }
  }

  async #endSlots(): Promise<void> {
    const { client, keep, board, sweep } = this.#parts;
    let ended = false;
    try {
      ended = await client.end(keep);
    } finally {
      // One that dies while it is told to end leaves its slots, too; those that are gone are refused.
      if (!ended && !keep) sweepSlots(board, sweep);
    }
  }

  #giveBack(): void {
    const { board, uffd, regions, doorbell, sweep, bitmaps } = this.#parts;
    board.close();
    uffd?.close();
    for (const region of regions) region.giveBack();
    doorbell.close();
    for (const bits of bitmaps ?? []) bits.free();
    raw.close(sweep.vm);
    this.#forget();
  }
}

/** The runs of pages for which `holds`. */
function* runsOf(pages: PageRange, holds: (page: PageIndex) => boolean): Generator<PageRange> {
  const stop = pages.first + pages.count;
  for (let page = pages.first, end = page; page < stop; page = ++end) {
    while (end < stop && holds(end)) end++;
    if (end > page) yield { first: page, count: end - page };
  }
}

/** The kernel moves pages, and makes huge ones where it is asked to. */
const canMove = (uffd: Userfaultfd | undefined): boolean =>
  uffd !== undefined && (uffd.enabled & UFFD_FEATURE.MOVE) !== 0 && transparentHugePages() !== 'never';

function portToken({
  board,
  doorbell,
  regions,
  uffd,
  verbs,
  staging_bytes,
  bitmaps,
}: KvmAttachmentParts): ExitPortToken {
  const aliases = new Map(
    regions.flatMap(({ slot, alias }) => (alias === undefined ? [] : [[slot.page, alias] as const])),
  );
  return {
    board: board.token,
    regions: regions.map(({ slot }) => slot),
    doorbell: doorbell.fd,
    uffd: uffd?.fd ?? -1,
    arrivals: UffdArrivals.share(),
    moves: regions.some(({ slot, drop, alias, hugeUnit }) => {
      const plain = drop.kind === 'mapped' && alias === undefined && hugeUnit === undefined;
      return plain && drop.memory === 'anonymous' && slot.pageSize >= TRANSPARENT_HUGE_BYTES && canMove(uffd);
    }),
    hugeUnits: new Map(
      regions.flatMap(({ slot, hugeUnit }) =>
        hugeUnit === undefined ? [] : [[slot.page, hugeUnit] as const],
      ),
    ),
    files: new Map(
      regions.flatMap(({ slot, drop }) =>
        drop.kind === 'file' ? [[slot.page, { fd: drop.fd, offset: drop.fileOffset }] as const] : [],
      ),
    ),
    zeroFilled: new Set(regions.flatMap(({ slot, zeroFilled }) => (zeroFilled ? [slot.page] : []))),
    aliases: aliases.size > 0 ? aliases : undefined,
    userfault: bitmaps && new Map(regions.map(({ slot }, index) => [slot.page, bitmaps[index]!.address])),
    staging_bytes,
    verbs,
  };
}
