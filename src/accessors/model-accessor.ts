import { setImmediate } from 'node:timers/promises';
import { type PageIndex } from '../api/address.js';
import { type AccessSite } from '../api/access.js';
import { type MemoryLayout } from '../api/layout.js';
import { type Accessor, type AccessRequest, type AccessResult } from './accessor.js';
import { pagesOf, type Walk, type WalkReport } from './walk.js';
import { WalkTally } from './walk-tally.js';

/** What a model of memory offers its accessors; the memory backend's kernel is one. */
export interface ModelRunner {
  run(request: {
    readonly site: AccessSite;
    readonly page: PageIndex;
    readonly offset: number;
    readonly length?: number;
    readonly bytes?: Uint8Array;
  }): Promise<{
    readonly state: string;
    readonly errno: number | undefined;
    readonly bytes: Uint8Array;
  }>;
}

const EIO = 5;
const PAGES_PER_SLICE = 16;

/**
 * An accessor of a model of memory, for hosts without KVM or userfaultfd: any site, in this isolate, one
 * access at a time. Precondition of `stop`: its accesses have completed, as with a thread.
 */
export class ModelAccessor implements Accessor {
  readonly how = 'an access of the model';
  readonly thread = undefined;
  #interrupted = false;
  #last: Promise<unknown> = Promise.resolve();

  constructor(
    readonly site: AccessSite,
    private readonly model: ModelRunner,
    private readonly layout: MemoryLayout,
  ) {}

  access({ page, offset = 0, bytes, length }: AccessRequest): Promise<AccessResult> {
    const span = length ?? this.layout.regionOf(page).pageSize - offset;
    return this.#after(async () => {
      const end = await this.model.run({
        site: this.site,
        page,
        offset,
        ...(bytes ? { bytes } : { length: span }),
      });
      if (end.state !== 'done') return { ok: false, errno: end.errno ?? EIO };
      return { ok: true, bytes: bytes ? new Uint8Array(0) : end.bytes };
    });
  }

  walk(walk: Walk): Promise<WalkReport> {
    return this.#after(async () => {
      this.#interrupted = false;
      const tally = new WalkTally();
      for (const page of pagesOf(walk)) {
        await this.#visit(page, tally);
        // Accesses that never wait would starve the event loop, and a resolver on it.
        if (tally.accesses % PAGES_PER_SLICE === 0) await setImmediate();
        if (this.#interrupted) return tally.report(true);
      }
      return tally.report(false);
    });
  }

  interrupt(): void {
    this.#interrupted = true;
  }

  async stop(): Promise<void> {
    this.interrupt();
    await this.#last;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #visit(page: PageIndex, tally: WalkTally): Promise<void> {
    const before = performance.now();
    const length = this.layout.regionOf(page).pageSize;
    const end = await this.model.run({ site: this.site, page, offset: 0, length });
    const took_ms = performance.now() - before;
    if (end.state === 'done') tally.saw(page, end.bytes, took_ms);
    else tally.failed(page, end.errno ?? EIO, took_ms);
  }

  /** Runs bodies one after the other, as a thread does. */
  #after<R>(body: () => Promise<R>): Promise<R> {
    const turn = this.#last.then(body);
    this.#last = turn.catch(() => {});
    return turn;
  }
}
