import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type Pager, type PagerPolicy, fileOffset, gpa, openPager } from 'demand-paging';
import { userfaultfd } from 'demand-paging/backends/userfaultfd';
import { ROOT, type SharedHalf } from './native.js';
import { type FaultRun, type Measured, type Memory, type Place, bytesOf, rateOf } from './run.js';

/** Passes before the measured one: the resolver's thread is new, and its code is compiled while it runs. */
const WARM_UPS = 2;

/**
 * The library's side. Each run opens a pager, warms it up, withdraws every page and measures: a pager that
 * stayed open would spin while the other side is measured.
 */
export class Library {
  constructor(
    private readonly shared: SharedHalf,
    private readonly memory: Memory,
    private readonly snapshot: number,
  ) {}

  faults(run: FaultRun, policy: Partial<PagerPolicy>): Promise<Measured> {
    const { pages, pageSize } = this.memory;
    return this.#measure({ ...policy, wait: run.wait }, run.place, async (pager) => {
      const address = Number(pager.layout.regions[0]!.hva);
      return this.shared.touchPages(address, pages, pageSize, run.order === 'random', run.seed, run.place.toucher);
    });
  }

  /** Brings everything by `prefetch`; nobody touches. */
  populate(policy: Partial<PagerPolicy>, place: Place): Promise<Measured> {
    return this.#measure(policy, place, async (pager) => {
      const start = performance.now();
      const { installedPages } = await pager.prefetch();
      const took_ns = (performance.now() - start) * 1e6;
      if (installedPages !== this.memory.pages) throw new Error(`prefetch brought ${installedPages} pages`);
      return took_ns;
    });
  }

  async #measure(policy: Partial<PagerPolicy>, place: Place, pass: (pager: Pager) => Promise<number>): Promise<Measured> {
    const pager = await this.#open(policy, place);
    try {
      for (let warmUp = 0; warmUp < WARM_UPS; warmUp++) {
        await pass(pager);
        await pager.withdraw(this.#everything(pager));
      }
      const took_ns = await pass(pager);
      const address = Number(pager.layout.regions[0]!.hva);
      const sum = this.shared.sumWords(address, bytesOf(this.memory));
      return { rate: rateOf(this.memory.pages, took_ns), sum };
    } finally {
      await pager.close();
    }
  }

  #open(policy: Partial<PagerPolicy>, place: Place): Promise<Pager> {
    const length = bytesOf(this.memory);
    return openPager({
      backend: userfaultfd(),
      regions: [
        {
          gpa: gpa(0n),
          length: BigInt(length),
          sourceOffset: fileOffset(0n),
          memory: 'anonymous',
          pageSize: this.memory.pageSize,
        },
      ],
      source: {
        module: pathToFileURL(join(ROOT, 'bench', 'children', 'pinned-source.mjs')).href,
        export: 'openPinned',
        options: { native: { address: this.snapshot, length }, cpu: place.handler },
      },
      policy,
    });
  }

  #everything(pager: Pager): { start: ReturnType<typeof gpa>; length: bigint }[] {
    return pager.layout.regions.map(({ gpa: start, length }) => ({ start, length }));
  }
}
