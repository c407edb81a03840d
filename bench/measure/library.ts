import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { type GpaRange, type Pager, type PagerPolicy, fileOffset, gpa, openPager } from 'demand-paging';
import { userfaultfd } from 'demand-paging/backends/userfaultfd';
import { ROOT, type SharedHalf } from './native.js';
import { type FaultRun, type Measured, type Memory, type Place, bytesOf, rateOf } from './run.js';

/**
 * Passes before the first measured one: a resolver's thread is new, and its code is compiled while it
 * runs, which takes some tens of thousands of faults.
 */
const WARM_UPS = 4;

/** What a pager is opened with. */
interface Setting {
  readonly policy: Partial<PagerPolicy>;
  readonly place: Place;
}

/** One pass over the whole memory: how long it took. */
type Pass = (pager: Pager) => Promise<number>;

/**
 * The library's side. A pager that waits in the kernel stays open from run to run, idle while the other side
 * is measured; one that spins would take a cpu from it, so it is opened and warmed up for each run.
 */
export class Library implements AsyncDisposable {
  #kept: { readonly setting: Setting; readonly pager: Pager } | undefined;

  constructor(
    private readonly shared: SharedHalf,
    private readonly memory: Memory,
    private readonly snapshot: number,
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

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#kept?.pager.close();
    this.#kept = undefined;
  }

  async #measure(setting: Setting, pass: Pass): Promise<Measured> {
    const pager = await this.#warm(setting, pass);
    try {
      await pager.withdraw(everything(pager));
      const took_ns = await pass(pager);
      const sum = this.shared.sumWords(addressOf(pager), bytesOf(this.memory));
      return { rate: rateOf(this.memory.pages, took_ns), sum };
    } finally {
      if (setting.policy.wait === 'spin') await this[Symbol.asyncDispose]();
    }
  }

  /** The pager that is open, if it is of this setting, or a new one that has run a few passes. */
  async #warm(setting: Setting, pass: Pass): Promise<Pager> {
    if (this.#kept && JSON.stringify(this.#kept.setting) === JSON.stringify(setting)) return this.#kept.pager;
    await this[Symbol.asyncDispose]();
    const pager = await this.#open(setting);
    this.#kept = { setting, pager };
    for (let warmUp = 0; warmUp < WARM_UPS; warmUp++) {
      await pager.withdraw(everything(pager));
      await pass(pager);
    }
    return pager;
  }

  #open({ policy, place }: Setting): Promise<Pager> {
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
}

const addressOf = (pager: Pager): number => Number(pager.layout.regions[0]!.hva);

const everything = (pager: Pager): GpaRange[] =>
  pager.layout.regions.map(({ gpa: start, length }) => ({ start, length }));
