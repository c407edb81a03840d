import { fileOffset, gpa, type PageIndex } from '../../api/address.js';
import { type AccessSite, type Coverage, type Effect, type SiteCoverage } from '../../api/access.js';
import { type FaultPort } from '../../api/backend.js';
import { FaultBatch } from '../../api/fault.js';
import { MemoryLayout } from '../../api/layout.js';
import { OUTCOME, ResolutionBatch } from '../../api/resolution.js';
import { pageSize } from '../../linux/index.js';
import { userfaultfd } from './backend.js';
import { openUserfaultfdPort } from './fault-port.js';
import { foreignMapping } from './foreign-mapping.js';
import { type UserfaultfdBackendOptions } from './options.js';
import { type UserfaultfdPortToken } from './port-token.js';

/** Somebody who accesses memory from one site, apart from this thread. */
export interface CoverageAccessor {
  /** Reads a byte of a page, or writes `bytes` to it. What was read, or a positive errno. */
  access(request: {
    readonly page: PageIndex;
    /** Bytes into the page. */
    readonly offset?: number;
    readonly length?: number;
    readonly bytes?: Uint8Array;
  }): Promise<
    { readonly ok: true; readonly bytes: Uint8Array } | { readonly ok: false; readonly errno: number }
  >;
  stop(): Promise<void>;
}

export interface MeasureCoverageOptions {
  readonly backend?: UserfaultfdBackendOptions | undefined;
  /** Memory to try it on. Default `shmem`, which another process can map. */
  readonly memory?: 'anonymous' | 'shmem' | undefined;
  /** Sites that `start` has accessors for. `external-mapping` of shmem is tried in any case. */
  readonly sites: readonly AccessSite[];
  start(site: AccessSite, layout: MemoryLayout): Promise<CoverageAccessor>;
  /** How long one site may take, in milliseconds. Default 3000. */
  readonly deadline_ms?: number | undefined;
}

/** What a page is filled with when its fault comes; never what missing memory reads as. */
const MARK = 0xa7;

/**
 * Tries on this host what a missing page does to an access of each site: a small stretch of memory is
 * registered, one page of it accessed from each site, and what comes first is watched, the fault or the end
 * of the access. Rows that were tried are `measured`; the others, and those with no clear result in time,
 * stay `declared`. In SIGBUS mode loads and stores of this process are not tried: they would end it.
 *
 * Blocks: nobody; each site at most `deadline_ms`. Errors: as the backend's `attach`, and what `start`
 * throws.
 */
export async function measureCoverage(options: MeasureCoverageOptions): Promise<Coverage> {
  const { memory = 'shmem', deadline_ms = 3000 } = options;
  const sites = options.sites.filter(
    (site) => !(options.backend?.sigbus && (site === 'vmm-load' || site === 'vmm-store')),
  );
  const tried: AccessSite[] = [
    ...new Set([...sites, ...(memory === 'shmem' ? (['external-mapping'] as const) : [])]),
  ];
  const size = pageSize();
  const region = {
    gpa: gpa(0),
    length: BigInt(tried.length * size),
    sourceOffset: fileOffset(0),
    memory,
    pageSize: size,
  };
  const attachment = await userfaultfd({ ...options.backend, shards: 1 }).attach(new MemoryLayout([region]));
  const [shard] = attachment.shards;
  const { port: place } = shard!;
  if (place.where !== 'worker') throw new TypeError('a userfaultfd opens in any isolate');
  const trial = new Trial(openUserfaultfdPort(place.token as UserfaultfdPortToken));
  const measured = new Map<AccessSite, Pick<SiteCoverage, 'effect' | 'address'>>();
  try {
    for (const [page, site] of tried.entries()) {
      const accessor =
        site === 'external-mapping'
          ? foreignMapping(attachment.layout, deadline_ms)
          : await options.start(site, attachment.layout);
      const effect = await trial.run(accessor, site, page, performance.now() + deadline_ms);
      if (effect) measured.set(site, { effect, address: effect === 'blocks' ? 'exact' : 'none' });
      await accessor.stop();
    }
  } finally {
    await trial.end();
    await attachment.close();
  }
  return attachment.coverage.map((row): SiteCoverage => {
    const seen = measured.get(row.site);
    return seen ? { ...row, ...seen, evidence: 'measured' } : row;
  });
}

/** Serves one page at a time and watches what happens. */
class Trial {
  readonly #port: FaultPort;
  readonly #faults = new FaultBatch(16);
  readonly #rows = new ResolutionBatch(1);
  /** The one outstanding wait for the port. */
  #ready: Promise<void> | undefined;

  constructor(port: FaultPort) {
    this.#port = port;
  }

  /** What the page being missing did; undefined if that did not become clear in time. */
  async run(
    accessor: CoverageAccessor,
    site: AccessSite,
    page: PageIndex,
    deadline: number,
  ): Promise<Effect | undefined> {
    let result: Awaited<ReturnType<CoverageAccessor['access']>> | 'failed' | undefined;
    const store = site === 'vmm-store';
    const over = accessor
      .access(store ? { page, bytes: Uint8Array.of(MARK) } : { page, length: 1 })
      .then((value) => void (result = value))
      .catch(() => void (result = 'failed'));
    let faulted = false;
    while (result === undefined && performance.now() < deadline) {
      if (this.#serve(page)) faulted = true;
      else await this.#any(over, deadline);
    }
    if (result === undefined || result === 'failed') return undefined;
    if (!result.ok) return faulted ? undefined : 'errors';
    if (!faulted) return 'unmediated';
    return store || result.bytes[0] === MARK ? 'blocks' : undefined;
  }

  /** Resolves the faults there are; whether one was of `page`. */
  #serve(page: PageIndex): boolean {
    this.#faults.clear();
    this.#port.take(this.#faults, 'none', 0);
    let hit = false;
    for (let row = 0; row < this.#faults.count; row++) {
      if (this.#faults.isEvent(row)) continue;
      hit ||= this.#faults.page[row] === page;
      this.#port.staging.fill(MARK, 0, pageSize());
      this.#rows.clear();
      this.#rows.push({ verb: 'copy', pages: { first: this.#faults.page[row]!, count: 1 }, from: 0 });
      do this.#port.resolve(this.#rows);
      while (this.#rows.outcome[0] === OUTCOME.again);
    }
    return hit;
  }

  async #any(over: Promise<void>, deadline: number): Promise<void> {
    this.#ready ??= this.#port.ready().finally(() => (this.#ready = undefined));
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>(
      (resolve) => (timer = setTimeout(resolve, Math.max(0, deadline - performance.now()))),
    );
    await Promise.race([over, this.#ready, late]);
    clearTimeout(timer);
  }

  /** A port that is closed lets its `ready` go, which keeps no event loop alive by itself. */
  async end(): Promise<void> {
    this.#port.close();
    await this.#ready;
  }
}
