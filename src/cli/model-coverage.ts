import {
  type AccessSite,
  type Coverage,
  type Effect,
  fileOffset,
  gpa,
  openPager,
  type PageIndex,
  type Pager,
  SITE_NAMES,
} from '../api/index.js';
import { type MemoryBackend, memoryBackend } from '../backends/memory/index.js';

const PAGE_BYTES = 4096;
const MARK = 0xa7;

/** A source that answers when it is told to. */
class HeldSource {
  readonly synchronous = false;
  readonly length = SITE_NAMES.length * PAGE_BYTES;
  #answer: (() => void) | undefined;

  read(_offset: number, into: Uint8Array): Promise<number> {
    return new Promise((resolve) => {
      this.#answer = () => resolve(into.fill(MARK).length);
    });
  }

  release(): void {
    this.#answer?.();
    this.#answer = undefined;
  }
}

/**
 * Tries on the model what a missing page does at each site, as it is tried on a kernel: what comes first is
 * watched, the fault or the end of the access.
 */
export async function measureModel(): Promise<Coverage> {
  const backend = memoryBackend();
  const source = new HeldSource();
  const pager = await openPager({
    backend,
    regions: [
      {
        gpa: gpa(0),
        length: BigInt(source.length),
        sourceOffset: fileOffset(0),
        memory: 'shmem',
        pageSize: PAGE_BYTES,
      },
    ],
    source,
    policy: { faultAroundPages: 1 },
  });
  try {
    const effects = new Map<AccessSite, Effect | undefined>();
    for (const [page, site] of SITE_NAMES.entries()) {
      if (site !== 'kernel-visibility')
        effects.set(site, await effectAt(site, page, { backend, pager, source }));
    }
    return pager.coverage.map((row) => {
      const effect = effects.get(row.site);
      return effect ? { ...row, effect, evidence: 'measured' } : row;
    });
  } finally {
    await pager.close({ missing: 'zero' });
  }
}

interface Bench {
  readonly backend: MemoryBackend;
  readonly pager: Pager;
  readonly source: HeldSource;
}

/** What a missing page does to an access; undefined where that is not clear. */
async function effectAt(
  site: AccessSite,
  page: PageIndex,
  { backend, pager, source }: Bench,
): Promise<Effect | undefined> {
  const faulted = new Promise<'fault'>((resolve) => {
    pager.on('fault', function heard(fault) {
      if (fault.page !== page) return;
      pager.off('fault', heard);
      resolve('fault');
    });
  });
  const access = backend.kernel.run({ site, page, length: 1 });
  const first = await Promise.race([faulted, access]);
  source.release();
  const { state, bytes } = await access;
  if (first !== 'fault') {
    return state === 'done'
      ? 'unmediated'
      : state === 'errored'
        ? 'errors'
        : state === 'injected'
          ? 'injects'
          : undefined;
  }
  return state === 'done' && bytes[0] === MARK ? 'blocks' : undefined;
}
