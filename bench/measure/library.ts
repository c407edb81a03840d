import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type GpaRange, type Pager, type PagerPolicy, fileOffset, gpa, openPager } from 'demand-paging';
import { userfaultfd } from 'demand-paging/backends/userfaultfd';
import { ROOT, type SharedHalf } from './native.js';
import { type FaultRun, type Measured, type Memory, type Place, bytesOf, rateOf } from './run.js';

/**
 * Pages brought before the first measured run, in so many passes at least: a resolver's thread is new, and
 * its code is compiled while it runs, which takes some tens of thousands of faults.
 */
const WARM_UP_PAGES = 65_536;
const LEAST_WARM_UPS = 4;
/**
 * Touchers that warm up together, each with its share of the pages. The same code is compiled as for one, and
 * what a wake-up across cpus costs, most of a fault where that is dear, is waited for by several at once.
 */
const WARM_UP_TOUCHERS = 4;

/** What a pager is opened with. */
interface Setting {
  readonly policy: Partial<PagerPolicy>;
  readonly place: Place;
  readonly touchers: number;
}

/** One pass over the whole memory by so many at once: how long it took. */
type Pass = (pager: Pager, touchers: number) => Promise<number>;

/**
 * The library's side. Each run opens a pager of its own, over memory and a snapshot of its own, and warms it
 * up.
 */
export class Library {
  constructor(
    private readonly shared: SharedHalf,
    private readonly memory: Memory,
  ) {}

  /** `touchers`: how many touch at once, each its share of the pages. */
  faults(
    { wait, order, seed, place }: FaultRun,
    policy: Partial<PagerPolicy>,
    touchers = 1,
  ): Promise<Measured> {
    const { pages, pageSize } = this.memory;
    return this.#measure({ policy: { ...policy, wait }, place, touchers }, async (pager, touchers) => {
      const share = pages / touchers;
      const shares = Array.from(
        { length: touchers },
        (_, i) => Math.floor((i + 1) * share) - Math.floor(i * share),
      );
      const took = shares.map((count, i) =>
        this.shared.touchPages(
          addressOf(pager) + Math.floor(i * share) * pageSize,
          count,
          pageSize,
          order === 'random',
          seed,
          place.toucher,
        ),
      );
      return Math.max(...(await Promise.all(took)));
    });
  }

  /** Populates everything by `prefetch`, without accesses. */
  populate(policy: Partial<PagerPolicy>, place: Place): Promise<Measured> {
    return this.#measure({ policy, place, touchers: 1 }, async (pager) => {
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
        // The last one as it will be measured: how a wait goes is learned as well.
        await pass(pager, warmUp === passes - 1 ? setting.touchers : WARM_UP_TOUCHERS);
        await pager.discard(everything(pager), { then: 'refetch' });
      }
      const took_ns = await pass(pager, setting.touchers);
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
