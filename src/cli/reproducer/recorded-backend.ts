import {
  type Attachment,
  type Backend,
  type FaultBatch,
  type FaultPort,
  FLAG,
  type MemoryLayout,
  openPort,
  type PageIndex,
  type ResolutionBatch,
  VERBS,
  type Wait,
} from '../../api/index.js';
import { type RealAccessor, type RealSubject } from '../../conformance/index.js';
import { type Record } from './record.js';

/**
 * A backend whose traffic is recorded. Its ports are opened in this isolate, so that the order is one; the thread that
 * drops pages would then wait for itself to read of it, so nothing is removed while it is recorded.
 */
export function recordedBackend(backend: Backend, record: Record): Backend {
  return {
    name: backend.name,
    probe: () => backend.probe(),
    async attach(layout, states) {
      const attachment = await backend.attach(layout, states);
      record.clear();
      record.minor = attachment.supports.verbs.includes('continue');
      record.memory = layout.regions[0]!.memory;
      record.page_bytes = layout.regions[0]!.pageSize;
      record.pageCount = layout.pageCount;
      return recordedAttachment(attachment, await openPort(attachment.shards[0]!.port), record);
    },
  };
}

function recordedAttachment(attachment: Attachment, port: FaultPort, record: Record): Attachment {
  let open = false;
  const place = {
    where: 'here',
    open(): FaultPort {
      // A second opener only looks, and must not close what the first one has.
      const owns = !open;
      open = true;
      return new RecordedPort(port, record, attachment.layout, owns);
    },
  } as const;
  const shard = attachment.shards[0]!;
  const { supports } = attachment;
  const recorded: Partial<Attachment> = {
    shards: [{ pages: shard.pages, port: place, kick: () => shard.kick() }],
    supports: {
      ...supports,
      discard: false,
      events: supports.events.filter((event) => event !== 'remove' && event !== 'unmap'),
    },
  };
  return new Proxy(attachment, {
    get(target, name) {
      const own: unknown = Reflect.get(recorded, name);
      if (own !== undefined) return own;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === 'function' ? (value as (...args: unknown[]) => unknown).bind(target) : value;
    },
  });
}

const BRINGS = ['copy', 'move', 'continue'];

class RecordedPort implements FaultPort {
  readonly #port: FaultPort;
  readonly #record: Record;
  readonly #layout: MemoryLayout;
  readonly #owns: boolean;

  constructor(port: FaultPort, record: Record, layout: MemoryLayout, owns: boolean) {
    this.#port = port;
    this.#record = record;
    this.#layout = layout;
    this.#owns = owns;
  }

  get staging(): Uint8Array {
    return this.#port.staging;
  }

  take(batch: FaultBatch, wait: Wait, timeout_ms: number): number {
    const before = batch.count;
    const taken = this.#port.take(batch, wait, timeout_ms);
    for (let row = before; row < batch.count; row++) {
      if (batch.isEvent(row)) {
        const event = batch.event(row);
        this.#record.add({
          kind: 'event',
          event: event.kind,
          pages: 'pages' in event ? event.pages : undefined,
        });
      } else {
        const { kind, page } = batch.fault(row);
        this.#record.add({ kind: 'fault', fault: kind, page });
      }
    }
    return taken;
  }

  ready(): Promise<void> {
    return this.#port.ready();
  }

  resolve(batch: ResolutionBatch): void {
    const brought = Array.from({ length: batch.count }, (_, row) => this.#bytes(batch, row));
    this.#port.resolve(batch);
    brought.forEach((bytes, row) => {
      const flags = batch.flags[row]!;
      this.#record.add({
        kind: 'verb',
        verb: VERBS[batch.verb[row]!]!,
        pages: { first: batch.page[row]!, count: batch.span[row]! },
        ...(bytes && { bytes }),
        wake: !(flags & FLAG.noWake),
        protect: (flags & FLAG.protect) !== 0,
        outcome: batch.outcomeOf(row),
        done: batch.done[row]!,
      });
    });
  }

  resident(page: PageIndex): boolean {
    return this.#port.resident(page);
  }

  close(): void {
    if (this.#owns) this.#port.close();
  }

  #bytes(batch: ResolutionBatch, row: number): Uint8Array | undefined {
    const from = batch.from[row]!;
    const verb = VERBS[batch.verb[row]!]!;
    const flags = batch.flags[row]!;
    if (!BRINGS.includes(verb) || flags & FLAG.direct) return undefined;
    if (verb === 'continue' && !(flags & FLAG.fill)) return undefined;
    return this.staging.slice(from, from + batch.span[row]! * this.#layout.regions[0]!.pageSize);
  }
}

/** A subject whose accesses and whose traffic with its kernel are recorded. */
export const recordedSubject = (subject: RealSubject, record: Record): RealSubject => ({
  ...subject,
  backend: () => subject.backend((kernel) => recordedBackend(kernel, record)),
  accessor: async (site, attachment) =>
    recordedAccessor(await subject.accessor(site, attachment), site, record),
});

function recordedAccessor(
  accessor: RealAccessor,
  site: Parameters<RealSubject['accessor']>[0],
  record: Record,
): RealAccessor {
  const discard: RealAccessor['discard'] = async (pages) => {
    const id = record.nextId();
    record.add({ kind: 'discard', id, pages });
    await accessor.discard!(pages);
    record.add({ kind: 'discarded', id });
  };
  return {
    async access(request) {
      const { page, offset = 0, bytes, length = bytes?.length ?? record.page_bytes - offset } = request;
      const id = record.nextId();
      record.add({ kind: 'touch', id, site, page, offset, length, ...(bytes && { bytes }) });
      const result = await accessor.access(request);
      if (!result.ok) record.add({ kind: 'end', id, errno: result.errno });
      else record.add({ kind: 'end', id, ...(!bytes && { seen: new Uint8Array(result.bytes) }) });
      return result;
    },
    ...(accessor.discard && { discard }),
    stop: () => accessor.stop(),
  };
}
