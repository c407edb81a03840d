import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type GpaRange, type Pager, type PagerPolicy, fileOffset, gpa, openPager } from 'demand-paging';
import { userfaultfd } from 'demand-paging/backends/userfaultfd';
import { ROOT, type SharedHalf } from './native.js';
import { type FaultRun, type Measured, type Memory, type Place, bytesOf, rateOf } from './run.js';

/**
 * Pages brought before the first measured run, in so many passes at least: a resolver's thread is new, and its
 * code is compiled while it runs, which takes some tens of thousands of faults.
 */
const WARM_UP_PAGES = 65_536;
const LEAST_WARM_UPS = 4;

/** What a pager is opened with. */
interface Setting {
  readonly policy: Partial<PagerPolicy>;
  readonly place: Place;
}

/** One pass over the whole memory: how long it took. */
type Pass = (pager: Pager) => Promise<number>;

/** The library's side. Each run opens a pager of its own, over memory and a snapshot of its own, and warms it up. */
export class Library {
  constructor(
    private readonly shared: SharedHalf,
    private readonly memory: Memory,
  ) {}

  faults({ wait, order, seed, place }: FaultRun, policy: Partial<PagerPolicy>): Promise<Measured> {
    const { pages, pageSize } = this.memory;
    return this.#measure({ policy: { ...policy, wait }, place }, (pager) =>
      this.shared.touchPages(addressOf(pager), pages, pageSize, order === 'random', seed, place.toucher),
    );
  }

  /** Brings everything by `prefetch`; nobody touches. */
  populate(policy: Partial<PagerPolicy>, place: Place): Promise<Measured> {
    return this.#measure({ policy, place }, async (pager) => {
      const start = performance.now();
      const { installedPages } = await pager.prefetch();
      const took_ns = (performance.now() - start) * 1e6;
      if (installedPages !== this.memory.pages) throw new Error(`prefetch brought ${installedPages} pages`);
      return took_ns;
    });
  }

  async #measure(setting: Setting, pass: Pass): Promise<Measured> {
    const length = bytesOf(this.memory);
    const snapshot = this.shared.makeSnapshot(length, this.memory.seed);
    try {
      await using pager = await this.#open(setting, snapshot);
      const passes = Math.max(LEAST_WARM_UPS, Math.ceil(WARM_UP_PAGES / this.memory.pages));
      for (let warmUp = 0; warmUp < passes; warmUp++) {
        await pass(pager);
        await pager.withdraw(everything(pager));
      }
      const took_ns = await pass(pager);
      return {
        rate: rateOf(this.memory.pages, took_ns),
        sum: this.shared.sumWords(addressOf(pager), length),
      };
    } finally {
      this.shared.unmap(snapshot, length); // after the pager that copies from it
    }
  }

  #open({ policy, place }: Setting, snapshot: number): Promise<Pager> {
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
        options: { native: { address: snapshot, length }, cpu: place.handler },
      },
      policy,
    });
  }
}

const addressOf = (pager: Pager): number => Number(pager.layout.regions[0]!.hva);

const everything = (pager: Pager): GpaRange[] =>
  pager.layout.regions.map(({ gpa: start, length }) => ({ start, length }));
