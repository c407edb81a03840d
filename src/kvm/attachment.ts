import { type PageRange } from '../api/address.js';
import { type Coverage } from '../api/access.js';
import { type Attachment, type RawMemory, type Shard } from '../api/backend.js';
import { type Supports } from '../api/capability.js';
import { DemandPagingError } from '../api/error.js';
import { type MemoryLayout } from '../api/layout.js';
import { type EventFd, raw, type Userfaultfd } from '../linux/index.js';
import { type ExitBoard } from './exit-board.js';
import { type ExitPortToken } from './exit-port.js';
import { HostMemory } from './host-memory.js';
import { type PagedRegion } from './paged-memory.js';
import { type SlotClient } from './slot-client.js';

/** The module that a resolver's worker imports to open a port. */
const PORT_MODULE = 'demand-paging/kvm';

export interface KvmAttachmentParts {
  readonly layout: MemoryLayout;
  readonly coverage: Coverage;
  readonly supports: Supports;
  readonly board: ExitBoard;
  readonly doorbell: EventFd;
  readonly regions: readonly PagedRegion[];
  readonly uffd: Userfaultfd | undefined;
  readonly client: SlotClient;
  /** The memory is the VMM's and outlives the attachment: what is present stays visible to the guest. */
  readonly keep: boolean;
  readonly verbs: number;
  readonly stagingBytes: number;
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
  #closed = false;

  constructor(parts: KvmAttachmentParts) {
    this.#parts = parts;
    this.layout = parts.layout;
    this.coverage = parts.coverage;
    this.supports = parts.supports;
    const slots = parts.regions.map(({ slot }) => slot);
    this.memory = this.#host = new HostMemory(parts.layout, slots, parts.board, parts.uffd !== undefined);
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

  /** A vCPU stands only when no access of KVM's in it waits for a page; one that is held would hold it for ever. */
  get withdrawPages(): number | undefined {
    return this.#parts.uffd ? 1 : undefined;
  }

  async withdraw(pages: PageRange): Promise<void> {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the attachment was closed');
    const { board, client } = this.#parts;
    // What is not there need not go, and must not be taken to the slot thread: whoever waits for it inside KVM_RUN
    // would be waited for there, and in vain, because it is held until this is over.
    for (let page = pages.first; page < pages.first + pages.count;) {
      let end = page;
      while (end < pages.first + pages.count && board.has('filled', end)) end++;
      if (end > page) await client.drop({ first: page, count: end - page });
      else board.mark('poisoned', end++, 1, false);
      page = end;
    }
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
    const { client, uffd, regions, doorbell, keep, board } = this.#parts;
    this.#host.close();
    try {
      await client.end(keep);
    } finally {
      board.close();
      // Unregistered first, so that no waiter is left when the descriptor goes.
      for (const { slot } of regions) uffd?.port.unregister(slot.address, slot.count * slot.pageSize);
      uffd?.close();
      for (const region of regions) region.giveBack();
      doorbell.close();
    }
  }
}

function portToken({
  board,
  doorbell,
  regions,
  uffd,
  verbs,
  stagingBytes,
}: KvmAttachmentParts): ExitPortToken {
  const aliases = new Map(
    regions.flatMap(({ slot, alias }) => (alias === undefined ? [] : [[slot.page, alias] as const])),
  );
  return {
    board: board.token,
    regions: regions.map(({ slot }) => slot),
    doorbell: doorbell.fd,
    uffd: uffd?.fd ?? -1,
    hugeUnits: new Map(
      regions.flatMap(({ slot, hugeUnit }) =>
        hugeUnit === undefined ? [] : [[slot.page, hugeUnit] as const],
      ),
    ),
    aliases: aliases.size > 0 ? aliases : undefined,
    stagingBytes,
    verbs,
  };
}
