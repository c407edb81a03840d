import { type PageIndex, type PageRange } from './address.js';
import { type FaultPort } from './backend.js';
import { type Supports } from './capability.js';
import { DemandPagingError, type ErrorCode } from './error.js';
import { hugePoolFile } from './huge-pool.js';
import { hasPageCache, type MemoryLayout, type RegionSpec } from './layout.js';
import { intersection } from './page-range.js';
import { type FetchReason, type InstallReason } from './resolver-protocol.js';
import { type PageStates } from './page-states.js';
import { FLAG, OUTCOME, ResolutionBatch, takesBytes, VERB, VERBS } from './resolution.js';
import { COUNTER, type Counters } from './statistics.js';

/** Why a row was pushed: what its success means. */
const MEANS = {
  wake: 0,
  demand: 1,
  prefetch: 2,
  ensured: 3,
  zeroed: 4,
  poison: 5,
  probe: 6,
  other: 7,
  /** As `poison`, where write protection of a page that is not there was in its way. */
  poisonUnmarked: 8,
  /** As `demand` for a page that is present already, and poison where the page cache has it no more. */
  mapped: 9,
} as const;
const isPoisoning = (means: number): boolean => means === MEANS.poison || means === MEANS.poisonUnmarked;
const REASONS: readonly (InstallReason | undefined)[] = [
  undefined,
  'demand',
  'prefetch',
  'ensured',
  'zeroed',
  undefined,
  undefined,
];

/** What the installer tells the resolver. */
export interface InstallerEvents {
  present(pages: PageRange, why: InstallReason): void;
  poisoned(pages: PageRange): void;
  /** A page held to be present is not there. `poisoned`: now it is. */
  vanished(pages: PageRange, poisoned: boolean): void;
  /**
   * The page is write-protected and not there, though its state was present: lift the protection, as for a
   * write.
   */
  marked(page: PageIndex): void;
  /** The memory is changing: read its events now, so that the rows can go on. */
  changing(): void;
  /** The backend could not do it; the pages are as they were. */
  failed(pages: PageRange, error: DemandPagingError): void;
  /** The mapping or the process is gone (ENOENT: some pages; ESRCH: all of it). */
  gone(pages: PageRange, errno: number): void;
}

export interface InstallerOptions {
  readonly layout: MemoryLayout;
  readonly states: PageStates;
  readonly port: FaultPort;
  readonly supports: Supports;
  readonly counters: Counters;
  readonly rows: number;
  readonly events: InstallerEvents;
  /** Called before (true) and after each batch that the port carries out. */
  installing?(on: boolean): void;
}

/** How often in one flush a row that meets EAGAIN is tried before the turn goes on without it. */
const AGAIN_ROUNDS = 8;
const ESRCH = 3;
const ENOMEM = 12;
const EFAULT = 14;
const ENOSPC = 28;
/**
 * The errno by which a port says that a page to be poisoned is not there, though it had been installed: the
 * port could not see that earlier.
 */
const EHWPOISON = 133;

/**
 * Carries a resolver's decisions to the port in batches and reads the outcomes. A row that could not be
 * finished (EAGAIN: a removal is in progress) stays pending, with its bytes in staging, until a later flush:
 * no row is lost, and nothing is installed in a page whose state has changed meanwhile.
 */
export class Installer {
  readonly #o: InstallerOptions;
  readonly #batch: ResolutionBatch;
  /** Meaning of each row, beside the batch. */
  #means: Uint8Array;
  #staged = 0;
  /** Rows that poison pages. */
  #poisonings = 0;

  constructor(options: InstallerOptions) {
    this.#o = options;
    this.#batch = new ResolutionBatch(options.rows);
    this.#means = new Uint8Array(options.rows);
  }

  /** Rows wait for another flush. */
  get pending(): boolean {
    return this.#batch.count > 0;
  }

  /** Rows wait that poison pages. */
  get poisoning(): boolean {
    return this.#poisonings > 0;
  }

  /**
   * Whether a pending row poisons the page: the kernel would let contents that come after it replace the
   * poison.
   */
  poisons(page: PageIndex): boolean {
    if (this.#poisonings === 0) return false;
    for (let row = 0; row < this.#batch.count; row++) {
      const first = this.#batch.page[row]!;
      if (isPoisoning(this.#means[row]!) && page >= first && page < first + this.#batch.span[row]!)
        return true;
    }
    return false;
  }

  /** Whether `bytes` can be staged without overwriting what pending rows still need. */
  canStage(bytes: number): boolean {
    return this.#staged + bytes <= this.#o.port.staging.length;
  }

  /**
   * Flushes until `bytes` can be staged. Ends because every flush reads the events that rows wait for.
   * Precondition: staging holds `bytes` when empty.
   */
  makeRoom(bytes: number): void {
    while (!this.canStage(bytes)) this.flush();
  }

  /** Room in staging for `bytes`; good until the flush that uses it. Precondition: {@link canStage}. */
  stage(bytes: number): { readonly into: Uint8Array; readonly from: number } {
    const from = this.#staged;
    this.#staged += bytes;
    return { into: this.#o.port.staging.subarray(from, from + bytes), from };
  }

  /** Gives back the last {@link stage}, unused. */
  unstage(bytes: number): void {
    this.#staged -= bytes;
  }

  /** Installs the contents at `from`. `cached`: the page cache has the page (a minor fault). */
  contents(pages: PageRange, from: number, direct: boolean, why: FetchReason, cached: boolean): void {
    const { states, layout, supports } = this.#o;
    const { pageSize } = layout.regionOf(pages.first);
    const byContinue = cached || supports.install === 'continue';
    const base = (direct ? FLAG.direct : 0) | (byContinue ? FLAG.fill : 0);
    const protectable = states.any('write-protected', pages);
    for (let at = pages.first; at < pages.first + pages.count;) {
      const protect = protectable && states.is('write-protected', at);
      let end = at + 1;
      if (!protectable) end = pages.first + pages.count;
      else while (end < pages.first + pages.count && states.is('write-protected', end) === protect) end++;
      // A moved page cannot come protected.
      const install = protect && supports.install === 'move' ? 'copy' : supports.install;
      this.#push(
        byContinue ? VERB.continue : VERB[install],
        at,
        end - at,
        from + (at - pages.first) * pageSize,
        base | (protect ? FLAG.protect : 0),
        MEANS[why],
      );
      at = end;
    }
  }

  /** Maps what the page cache has, as it is. */
  cached(page: PageIndex): void {
    this.#push(VERB.continue, page, 1, 0, this.#protection(page), MEANS.demand);
  }

  /**
   * Maps what the page cache has of pages that are present: from now on no minor fault of theirs is answered.
   */
  map(pages: PageRange): void {
    this.#push(VERB.continue, pages.first, pages.count, 0, 0, MEANS.mapped);
  }

  /** Installs zeros: for pages that were removed, or that the source says are zeros. */
  zero(pages: PageRange, why: FetchReason | 'zeroed' = 'zeroed'): void {
    const { supports, layout, states } = this.#o;
    const plain = !states.any('write-protected', pages) && layout.regionOf(pages.first).memory !== 'hugetlb';
    if (plain && supports.verbs.includes('zeropage')) {
      return this.#push(VERB.zeropage, pages.first, pages.count, 0, 0, MEANS[why]);
    }
    // The kernel has no zero page of this size, or that comes protected: copy one.
    const { pageSize } = layout.regionOf(pages.first);
    for (let page = pages.first; page < pages.first + pages.count; page++) {
      this.makeRoom(pageSize);
      const { into, from } = this.stage(pageSize);
      into.fill(0);
      this.#push(VERB.copy, page, 1, from, this.#protection(page), MEANS[why]);
    }
  }

  poison(pages: PageRange): void {
    this.#push(VERB.poison, pages.first, pages.count, 0, 0, MEANS.poison);
  }

  /**
   * Finds out whether a page is there: poison does not go where something is (`already-present`, and its
   * waiter woken), and where nothing is, its contents are lost and poison is right.
   */
  probe(page: PageIndex): void {
    this.#push(VERB.poison, page, 1, 0, 0, MEANS.probe);
  }

  wake(pages: PageRange): void {
    this.#push(VERB.wake, pages.first, pages.count, 0, 0, MEANS.wake);
  }

  /** Lets the accesses waiting for these pages fail once. */
  fail(pages: PageRange): void {
    this.#push(VERB.fail, pages.first, pages.count, 0, 0, MEANS.other);
  }

  protect(verb: 'writeprotect' | 'rwprotect', pages: PageRange, on: boolean): void {
    this.#push(VERB[verb], pages.first, pages.count, 0, on ? FLAG.protect : 0, MEANS.other);
  }

  /**
   * Carries out all rows. Afterwards {@link pending} tells whether some must wait for the memory to settle.
   */
  flush(): void {
    for (let round = 0; this.#batch.count > 0 && round < AGAIN_ROUNDS; round++) {
      this.#o.counters.add(COUNTER.batches);
      this.#o.installing?.(true);
      try {
        this.#o.port.resolve(this.#batch);
      } finally {
        this.#o.installing?.(false);
      }
      if (this.#settleRows()) this.#o.events.changing();
    }
    if (this.#batch.count === 0) this.#staged = 0;
  }

  /** Reads the outcomes, keeps what must be tried again at the front, and says whether something must. */
  #settleRows(): boolean {
    const batch = this.#batch;
    const { count } = batch;
    let kept = 0;
    let again = false;
    // Acting on a failure, or a page found lost, can push rows: that waits until the batch is in order again.
    let failures: (() => void)[] | undefined;
    for (let row = 0; row < count; row++) {
      const outcome = batch.outcome[row]!;
      const page = batch.page[row]!;
      const done = batch.done[row]!;
      if (done > 0 && this.#means[row] === MEANS.probe) {
        const vanished = { first: page, count: done };
        (failures ??= []).push(() => this.#o.events.vanished(vanished, true));
      } else if (done > 0) this.#done(row, { first: page, count: done });
      if (outcome === OUTCOME.installed) continue;
      const rest = { first: page + done, count: batch.span[row]! - done };
      if (outcome === OUTCOME.again) {
        again = true;
        this.#o.counters.add(COUNTER.againOutcomes);
        kept = this.#keep(row, kept, rest);
      } else if (outcome === OUTCOME['already-present']) {
        const { first } = rest;
        const lift = this.#liftMark(row, first);
        if (lift) (failures ??= []).push(lift);
        else this.#raced(row, first); // installed by another thread, and woken; go on after it
        kept = this.#keep(row, kept, { first: first + 1, count: rest.count - 1 });
      } else if (outcome === OUTCOME.gone && batch.errno[row] !== ESRCH) {
        // One page has no memory; the others may. Tried again without it.
        const errno = batch.errno[row]!;
        (failures ??= []).push(() => this.#o.events.gone({ first: rest.first, count: 1 }, errno));
        kept = this.#keep(row, kept, { first: rest.first + 1, count: rest.count - 1 });
      } else if (this.#foundEmptied(row) && this.#means[row] === MEANS.mapped) {
        const lost = { first: rest.first, count: 1 };
        (failures ??= []).push(() => this.poison(lost));
        kept = this.#keep(row, kept, { first: rest.first + 1, count: rest.count - 1 });
      } else if (this.#foundEmptied(row)) {
        this.#turnIntoWake(row);
        kept = this.#keep(row, kept, rest);
      } else (failures ??= []).push(this.#failure(row, rest));
    }
    batch.count = kept;
    if (this.#poisonings > 0) this.#poisonings = this.#means.subarray(0, kept).filter(isPoisoning).length;
    failures?.forEach((act) => act());
    return again;
  }

  /**
   * Poison may have been refused by something other than a page: of shared memory the kernel keeps write
   * protection for a page that is not there, and installs no poison over it. The next access to that page
   * would find zeros.
   */
  #liftMark(row: number, page: PageIndex): (() => void) | undefined {
    const { layout, states, supports, port } = this.#o;
    const means = this.#means[row];
    const keepsMarks = supports.verbs.includes('writeprotect') && hasPageCache(layout.regionOf(page).memory);
    if (!keepsMarks) return undefined;
    if (means === MEANS.poison && !states.isPresent(page)) return () => this.#poisonUnmarked(page);
    // One that ought to be there: it is not, so what was found can only be its write protection.
    const isMark = states.is('write-protected', page) && supports.residency && !port.resident(page);
    return means === MEANS.probe && isMark ? () => this.#probeUnmarked(page) : undefined;
  }

  #probeUnmarked(page: PageIndex): void {
    this.#o.events.marked(page);
    this.probe(page);
  }

  /** Lifts the protection of a page that is not there, and poisons the place. */
  #poisonUnmarked(page: PageIndex): void {
    this.#push(VERB.writeprotect, page, 1, 0, 0, MEANS.other);
    this.#push(VERB.poison, page, 1, 0, 0, MEANS.poisonUnmarked);
  }

  /**
   * Whether a page was to be mapped from the page cache, and by now the page cache has none: it was discarded
   * between the minor fault and this. An access that waits for it faults again, and then it is missing.
   */
  #foundEmptied(row: number): boolean {
    const { verb, flags, errno } = this.#batch;
    return verb[row] === VERB.continue && !(flags[row]! & FLAG.fill) && errno[row] === EFAULT;
  }

  /** What to do about a row that cannot be finished. */
  #failure(row: number, rest: PageRange): () => void {
    const { events } = this.#o;
    const errno = this.#batch.errno[row]!;
    const outcome = this.#batch.outcome[row]!;
    if (outcome === OUTCOME.gone) return () => events.gone(rest, errno);
    if (this.#means[row] === MEANS.probe && errno === EHWPOISON) return () => events.vanished(rest, false);
    const verb = VERBS[this.#batch.verb[row]!];
    const { code, hint } = refused(outcome, errno, this.#o.layout.regionOf(rest.first));
    const message = `the backend could not ${verb} ${rest.count} pages`;
    const syscall = this.#batch.syscall[row] ?? verb;
    const error = new DemandPagingError(code, message, { errno: errno || undefined, syscall, hint });
    return () => events.failed(rest, error);
  }

  /** Where the bytes of one of a row's pages lie; 0 where the row has none. */
  #bytesAt(row: number, page: PageIndex): number {
    const { verb, from, flags, page: first } = this.#batch;
    if (!takesBytes(verb[row]!, flags[row]!)) return from[row]!;
    return from[row]! + (page - first[row]!) * this.#o.layout.regionOf(page).pageSize;
  }

  /** Moves what remains of a row to the front. */
  #keep(row: number, kept: number, rest: PageRange): number {
    if (rest.count <= 0) return kept;
    const batch = this.#batch;
    batch.from[kept] = this.#bytesAt(row, rest.first);
    batch.verb[kept] = batch.verb[row]!;
    batch.flags[kept] = batch.flags[row]!;
    this.#means[kept] = this.#means[row]!;
    batch.page[kept] = rest.first;
    batch.span[kept] = rest.count;
    return kept + 1;
  }

  /**
   * Takes `pages` out of the pending rows and wakes their accessors, so that they fault anew. Called when the
   * states of these pages changed: what would install them was decided by the old ones, and what would poison
   * them, unless `keepsPoison`. The other pages of a row stay.
   */
  reconsider(pages: PageRange, keepsPoison: boolean): void {
    const rows = this.#batch.count;
    for (let row = 0; row < rows; row++) {
      const means = this.#means[row]!;
      if (means === MEANS.wake || means === MEANS.other || (keepsPoison && isPoisoning(means))) continue;
      const own = { first: this.#batch.page[row]!, count: this.#batch.span[row]! };
      const [stale] = intersection(own, pages);
      if (!stale) continue;
      const before = stale.first - own.first;
      const end = stale.first + stale.count;
      const after = own.first + own.count - end;
      if (after > 0)
        this.#append(
          this.#batch.verb[row]!,
          end,
          after,
          this.#bytesAt(row, end),
          this.#batch.flags[row]!,
          means,
        );
      if (before > 0) {
        this.#batch.span[row] = before;
        this.#append(VERB.wake, stale.first, stale.count, 0, 0, MEANS.wake);
      } else {
        this.#turnIntoWake(row);
        this.#batch.span[row] = stale.count;
      }
    }
  }

  #protection(page: PageIndex): number {
    return this.#o.states.is('write-protected', page) ? FLAG.protect : 0;
  }

  #turnIntoWake(row: number): void {
    if (isPoisoning(this.#means[row]!)) this.#poisonings--;
    this.#batch.verb[row] = VERB.wake;
    this.#batch.flags[row] = 0;
    this.#means[row] = MEANS.wake;
  }

  #push(verb: number, first: PageIndex, count: number, from: number, flags: number, means: number): void {
    // What is staged for this very row must outlive the flushes that make room for it.
    const staged = this.#staged;
    while (this.#batch.count >= this.#o.rows) this.flush();
    this.#staged = staged;
    this.#append(verb, first, count, from, flags, means);
  }

  /**
   * Adds a row, also where that makes more rows than a batch has: parts of rows that wait cannot wait for a
   * flush.
   */
  #append(verb: number, first: PageIndex, count: number, from: number, flags: number, means: number): void {
    if (this.#batch.full) {
      this.#batch.grow();
      const known = this.#means;
      this.#means = new Uint8Array(this.#batch.capacity);
      this.#means.set(known);
    }
    this.#means[this.#batch.pushRow(verb, first, count, from, flags)] = means;
    if (isPoisoning(means)) this.#poisonings++;
  }

  #done(row: number, pages: PageRange): void {
    const means = this.#means[row]!;
    const why = REASONS[means];
    if (why !== undefined) this.#o.events.present(pages, why);
    else if (isPoisoning(means)) this.#o.events.poisoned(pages);
  }

  #raced(row: number, page: PageIndex): void {
    if (REASONS[this.#means[row]!] !== undefined) this.#o.events.present({ first: page, count: 1 }, 'raced');
  }
}

/** What a backend's failure is called. Memory that runs out does so for another reason with each kind. */
function refused(
  outcome: number,
  errno: number,
  { memory, pageSize }: Pick<RegionSpec, 'memory' | 'pageSize'>,
): { readonly code: ErrorCode; readonly hint?: string } {
  if (outcome === OUTCOME.refused) return { code: 'NOT_SUPPORTED' };
  if ((errno === ENOMEM || errno === ENOSPC) && memory === 'hugetlb')
    return { code: 'NO_HUGE_PAGES', hint: `Raise ${hugePoolFile(pageSize)}, and reserve when mapping` };
  if (errno === ENOMEM && memory === 'guest-memfd') {
    const hint = 'The process may have vm.max_map_count mappings: larger pages need fewer';
    return { code: 'KERNEL', hint };
  }
  if ((errno === ENOMEM || errno === ENOSPC) && memory === 'shmem')
    return {
      code: 'KERNEL',
      hint: 'There is no memory left where the memory file lies, such as a full tmpfs',
    };
  if (errno === EFAULT && memory !== 'anonymous')
    return {
      code: 'KERNEL',
      hint: 'The memory file may have been truncated: it must stay as long as its region',
    };
  return { code: 'KERNEL' };
}
