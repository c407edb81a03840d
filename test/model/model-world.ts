import {
  FaultBatch,
  fileOffset,
  gpa,
  MemoryLayout,
  type MemoryKind,
  type Resolution,
  ResolutionBatch,
} from 'demand-paging';
import {
  memoryBackend,
  type ModelAttachment,
  type ModelOptions,
  type Stepper,
} from 'demand-paging/backends/memory';

export const PAGE = 4096;

export const layoutOf = (pages: number, memory: MemoryKind = 'anonymous', pageSize = PAGE): MemoryLayout =>
  new MemoryLayout([
    { gpa: gpa(0x10000000), length: BigInt(pages * pageSize), sourceOffset: fileOffset(0), memory, pageSize },
  ]);

/** An attached model whose port the test itself reads and resolves. */
export class ModelWorld {
  readonly batch = new FaultBatch(16);
  readonly rows = new ResolutionBatch(16);

  constructor(readonly attachment: ModelAttachment) {}

  static async attach(
    pages = 4,
    options: ModelOptions = {},
    memory: MemoryKind = 'anonymous',
  ): Promise<ModelWorld> {
    return new ModelWorld(
      await memoryBackend({ staging_bytes: 4 * PAGE, ...options }).attach(layoutOf(pages, memory)),
    );
  }

  get kernel(): ModelAttachment['kernel'] {
    return this.attachment.kernel;
  }

  get port(): ModelAttachment['port'] {
    return this.attachment.port;
  }

  /** What the port has, in words. */
  take(limit = 16): string[] {
    const batch = limit === 16 ? this.batch : new FaultBatch(limit);
    batch.clear();
    this.port.take(batch);
    return Array.from({ length: batch.count }, (_, row) => {
      if (!batch.isEvent(row)) return `${batch.fault(row).kind} ${batch.page[row]}`;
      const event = batch.event(row);
      return event.kind === 'fork'
        ? `fork ${event.fd}`
        : `${event.kind} ${event.pages.first}+${event.pages.count}`;
    });
  }

  /** Carries out one resolution and says what came of it, with the pages done. */
  resolve(resolution: Resolution): string {
    this.rows.clear();
    const row = this.rows.push(resolution);
    this.port.resolve(this.rows);
    return `${this.rows.outcomeOf(row)} ${this.rows.done[row]}`;
  }

  /** Installs pages filled with `byte`. */
  copy(
    first: number,
    byte: number,
    more: { count?: number; wake?: boolean; protect?: boolean } = {},
  ): string {
    const { count = 1, ...flags } = more;
    this.port.staging.fill(byte);
    return this.resolve({ verb: 'copy', pages: { first, count }, from: 0, ...flags });
  }

  run(stepper: Stepper, most = 100): void {
    for (let step = 0; stepper.runnable && step < most; step++) stepper.step();
  }

  /** A read of one byte, stepped as far as it gets. */
  read(page: number, site: Parameters<ModelAttachment['kernel']['access']>[0]['site'] = 'vmm-load') {
    const access = this.kernel.access({ site, page, length: 1 });
    this.run(access);
    return access;
  }

  write(
    page: number,
    byte: number,
    site: Parameters<ModelAttachment['kernel']['access']>[0]['site'] = 'vmm-store',
  ) {
    const access = this.kernel.access({ site, page, bytes: Uint8Array.of(byte) });
    this.run(access);
    return access;
  }
}
