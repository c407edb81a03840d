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
import { type SharedVcpuState } from './shared-vcpu-state.js';
import { type ExitPortToken } from './exit-port.js';
import { HostMemory } from './host-memory.js';
import { mapFile } from './installer.js';
import { type PagedRegion } from './paged-memory.js';
import { type SlotClient } from './slot-client.js';
import { type Sweep, sweepSlots } from './sweep-slots.js';

/** The module that a resolver's worker imports to open a port. */
const PORT_MODULE = 'demand-paging/kvm';
/** Period of reading events while the slot thread may wait until one is read. */
const EVENTS_EVERY_MS = 100;

export interface KvmAttachmentParts {
  readonly layout: MemoryLayout;
  readonly coverage: Coverage;
  readonly supports: Supports;
  readonly shared: SharedVcpuState;
  readonly doorbell: EventFd;
  readonly regions: readonly PagedRegion[];
  readonly uffd: Userfaultfd | undefined;
  readonly client: SlotClient;
  /** For `userfault-bitmap`: one for each region. */
  readonly bitmaps: readonly SharedBits[] | undefined;
  /** Deletes the memslots of a slot thread that has crashed; `vm` is closed at the end. */
  readonly sweep: Sweep;
  /** The memory is the VMM's and outlives the attachment: present pages stay mapped for the guest. */
  readonly keep: boolean;
  readonly verbs: number;
  readonly staging_bytes: number;
}

/**
 * Memory whose missing pages stop vCPUs by exits of KVM_RUN, and other accessors by a userfaultfd, if there
 * is one.
 */
export class KvmAttachment implements Attachment {
  readonly layout: MemoryLayout;
  readonly coverage: Coverage;
  readonly supports: Supports;
  readonly shards: readonly Shard[];
  readonly memory: RawMemory;
  readonly #parts: KvmAttachmentParts;
  readonly #host: HostMemory;
  readonly #disarm: () => void;
  #closed = false;

  constructor(parts: KvmAttachmentParts) {
    this.#parts = parts;
    this.layout = parts.layout;
    this.coverage = parts.coverage;
    this.supports = parts.supports;
    const slots = parts.regions.map(({ slot }) => slot);
    this.memory = this.#host = new HostMemory(parts.layout, slots, parts.shared, parts.uffd !== undefined);
    // Node can end a thread that waits in an exit handler, but not one that waits in a page fault.
    this.#disarm = parts.uffd ? endWith() : () => {};
    const { shared, doorbell } = parts;
    this.shards = [
      {
        pages: { first: 0, count: parts.layout.pageCount },
        port: { where: 'worker', module: PORT_MODULE, export: 'openExitPort', token: portToken(parts) },
        kick: () => {
          shared.kick();
          doorbell.ring();
        },
      },
    ];
  }

  get failure(): Promise<DemandPagingError> {
    return this.#parts.client.failure;
  }

  /** Unmaps frozen pages from the guest; their contents stay. */
  async freeze(pages: PageRange): Promise<void> {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the attachment was closed');
    const { shared, client } = this.#parts;
    for (const range of runsOf(pages, (page) => shared.has('populated', page)))
      await this.#readingEvents(client.freeze(range));
  }

  /**
   * A vCPU can be paused only when no access of KVM in it waits for a page. While pages are held back such an
   * access could wait for one of them, and the slot thread for the vCPU. Without a userfaultfd no access
   * waits inside KVM_RUN.
   */
  quiesce<T>(body: () => Promise<T>, signal: AbortSignal): Promise<T> {
    return this.#parts.uffd ? this.#parts.client.quiesce(body, signal) : body();
  }

  async discard(pages: PageRange): Promise<void> {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the attachment was closed');
    // Only populated and poisoned pages have anything to discard.
    const { shared, client } = this.#parts;
    const runs = runsOf(pages, (page) => shared.has('populated', page) || shared.has('poisoned', page));
    for (const range of runs) await this.#readingEvents(client.discard(range));
  }

  /**
   * Also reads the userfaultfd while the slot thread may wait until an event is read. The resolver reads it,
   * unless it has crashed or is in a source that does not return. The accessor of a fault that is read here
   * is woken and faults again.
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

  /**
   * vCPUs get the pages mapped when they fault. Pages in a guest_memfd are mapped for the VMM's threads here.
   */
  markPresent(pages: PageRange): void {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the attachment was closed');
    const { regions, shared } = this.#parts;
    const { slot, alias } = regions.find(
      ({ slot: { page, count } }) => pages.first >= page && pages.first < page + count,
    )!;
    const errno = alias === undefined ? 0 : mapFile(slot, pages.first, pages.count);
    // For lack of mappings they stay unmapped until their next access.
    if (errno !== 0 && errno !== ERRNO.ENOMEM)
      throw systemError('mmap', errno, 'present pages cannot be mapped');
    shared.mark('populated', pages.first, pages.count, true); // after they are mapped
  }

  moved(): void {
    // remap events are not requested: memslots would not follow
  }

  abandonChild(fd: number): void {
    raw.close(fd); // the memory is not inherited, so no fork is reported
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#host.close();
    try {
      // Unregistered first, so that no access inside KVM_RUN waits: the slot thread would wait for its vCPU.
      this.#unregister();
      await this.#endSlots();
    } finally {
      this.#giveBack();
    }
  }

  #unregister(): void {
    const { uffd, regions, shared } = this.#parts;
    if (!uffd) return;
    for (const { slot } of regions) {
      const { page: first, count, pageSize, address } = slot;
      const unregister = (pages: PageRange): boolean =>
        uffd.port.unregister(address + (pages.first - first) * pageSize, pages.count * pageSize) === 0;
      if (unregister({ first, count })) continue;
      // Where files are mapped over a part of the reservation the kernel refuses the whole range: only the
      // rest of it is registered.
      const isReserved = (page: PageIndex): boolean =>
        !shared.has('populated', page) || shared.has('frozen', page);
      for (const run of runsOf({ first, count }, isReserved))
        if (!unregister(run))
          for (let page = run.first; page < run.first + run.count; page++)
            unregister({ first: page, count: 1 });
    }
  }

  async #endSlots(): Promise<void> {
    const { client, keep, shared, sweep } = this.#parts;
    let ended = false;
    try {
      ended = await client.end(keep);
    } finally {
      // A thread that crashes while it executes `end` leaves memslots, too; KVM refuses numbers that are
      // already deleted.
      if (!ended && !keep) sweepSlots(shared, sweep);
    }
  }

  #giveBack(): void {
    const { shared, uffd, regions, doorbell, sweep, bitmaps } = this.#parts;
    shared.close();
    uffd?.close();
    for (const region of regions) region.giveBack();
    doorbell.close();
    for (const bits of bitmaps ?? []) bits.free();
    raw.close(sweep.vm);
    this.#disarm();
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

/** Whether the kernel supports UFFDIO_MOVE and transparent huge pages. */
const canMove = (uffd: Userfaultfd | undefined): boolean =>
  uffd !== undefined && (uffd.enabled & UFFD_FEATURE.MOVE) !== 0 && transparentHugePages() !== 'never';

function portToken({
  shared,
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
    shared: shared.token,
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
