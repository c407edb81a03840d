import { MessageChannel } from 'node:worker_threads';
import {
  type AccessSite,
  type Backend,
  type Coverage,
  type Effect,
  fileOffset,
  gpa,
  type MemoryKind,
  openPager,
  type PageIndex,
  type Pager,
  type PageSource,
  servePort,
} from '../api/index.js';

/** What the pages hold; never what missing memory reads as. */
export const MARK = 0xa7;

export interface PagerCoverageOptions {
  readonly backend: Backend;
  readonly memory: MemoryKind;
  readonly pageSize: number;
  /** Where guest memory begins. */
  readonly base: bigint;
  readonly sites: readonly AccessSite[];
  /** Reads the first byte of a page from a site, or writes {@link MARK} to it; resolves when the access is through. */
  access(site: AccessSite, page: PageIndex, pager: Pager): Promise<AccessEnd>;
  /** How long one site may take, in milliseconds. Default 3000. */
  readonly deadline_ms?: number;
}

/** How an access ended: with a byte, with an error, or with an abort in the guest. */
export type AccessEnd = number | 'errored' | 'injected';

/** A source that answers when it is told to. */
class HeldSource implements PageSource {
  readonly synchronous = false;
  #heard: (() => void) | undefined;
  #answer: (() => void) | undefined;

  constructor(readonly length: number) {}

  /** Resolves when somebody wants a page. */
  wanted(): Promise<'wanted'> {
    return new Promise((resolve) => (this.#heard = () => resolve('wanted')));
  }

  read(_offset: number, into: Uint8Array): Promise<number> {
    return new Promise((resolve) => {
      this.#answer = () => resolve(into.fill(MARK).length);
      this.#heard?.();
    });
  }

  release(): void {
    this.#answer?.();
    this.#answer = undefined;
  }
}

/**
 * Tries on a backend what a missing page does to an access of each site: what comes first is watched, the
 * wish for the page or the end of the access. Rows that were tried are `measured`; the others, and those without
 * a clear result in time, stay as they are declared.
 */
export async function measureThroughPager(options: PagerCoverageOptions): Promise<Coverage> {
  const { backend, memory, pageSize, base, sites } = options;
  const length = sites.length * pageSize;
  const source = new HeldSource(length);
  const { port1, port2 } = new MessageChannel();
  servePort(port1, source);
  const pager = await openPager({
    backend,
    regions: [{ gpa: gpa(base), length: BigInt(length), sourceOffset: fileOffset(0), memory, pageSize }],
    source: { port: port2, length, servedHere: true },
    needs: [],
    policy: { faultAroundPages: 1 },
  });
  try {
    const effects = new Map<AccessSite, Effect>();
    for (const [page, site] of sites.entries()) {
      const effect = await effectAt(site, page, pager, source, options);
      if (effect) effects.set(site, effect);
    }
    return pager.coverage.map((row) => {
      const effect = effects.get(row.site);
      return effect ? { ...row, effect, evidence: 'measured' } : row;
    });
  } finally {
    await pager.close({ missing: 'leave' });
  }
}

/** What the page being missing did; undefined if that did not become clear. */
async function effectAt(
  site: AccessSite,
  page: PageIndex,
  pager: Pager,
  source: HeldSource,
  { access, deadline_ms = 3000 }: PagerCoverageOptions,
): Promise<Effect | undefined> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<'late'>((resolve) => (timer = setTimeout(() => resolve('late'), deadline_ms)));
  const wanted = source.wanted();
  const ended = access(site, page, pager);
  const first = await Promise.race([wanted, ended, late]);
  source.release();
  const end = await Promise.race([ended, late]);
  clearTimeout(timer);
  if (end === 'late' || first === 'late') return undefined;
  if (first === 'wanted') return end === MARK ? 'blocks' : undefined;
  return end === 'errored' ? 'errors' : end === 'injected' ? 'injects' : 'unmediated';
}
