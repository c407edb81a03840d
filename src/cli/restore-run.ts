import {
  type DemandPagingError,
  fileOffset,
  gpa,
  type GpaRange,
  openPager,
  type PageRange,
  type Pager,
  type SourceRef,
} from '../api/index.js';
import { addPage } from '../accessors/index.js';
import { AccessorTeam, type Expectation } from './accessor-team.js';
import { ImageFile } from './image-file.js';
import { ItsRestore, type RestoredWords } from './its-restore.js';
import { holdings, isClean, leaksSince } from './leak-check.js';
import { chooseBackend, imageSource, type Served } from './restore-backend.js';
import {
  type RestoreJob,
  type RestoreMessage,
  type RestorePhase,
  type RestoreResult,
} from './restore-job.js';
import { restoredWords, type SavedVm, savedVm } from './saved-vm.js';
import { verify } from './verification.js';

const PROGRESS_MS = 80;

type Paged = Pick<RestoreResult, 'accessors' | 'its' | 'prefetch' | 'firstAccess_ms' | 'complete_ms'>;

/** Restores a guest on demand, as a {@link RestoreJob} says, and finds out whether everything came right. */
export class RestoreRun {
  readonly #job: RestoreJob;
  readonly #tell: (message: RestoreMessage) => void;
  readonly #vm: SavedVm | undefined;
  readonly #words: RestoredWords;
  readonly #cut: Promise<never>;
  #interrupt!: () => void;
  #team: AccessorTeam | undefined;
  #phase: RestorePhase = 'paging';

  constructor(job: RestoreJob, tell: (message: RestoreMessage) => void) {
    this.#job = job;
    this.#tell = tell;
    this.#vm = job.vector && savedVm(job.vector);
    this.#words = this.#vm ? restoredWords(this.#vm) : new Map();
    this.#cut = new Promise((_, reject) => (this.#interrupt = () => reject(new Error('interrupted'))));
    this.#cut.catch(() => {}); // may come when nobody waits
  }

  /** Ends the run early: {@link run} rejects once everything has been given back. */
  interrupt(): void {
    this.#interrupt();
    this.#team?.interrupt();
  }

  /**
   * Rejects with what the pager, the source or the image throws. Whether it resolves or rejects, nothing is
   * left behind; an accessor that is stopped in a page is waited for until that has come.
   */
  async run(): Promise<RestoreResult> {
    const before = await holdings();
    const served = chooseBackend(this.#job);
    const source = await imageSource(this.#job);
    const pager = await this.#open(served, source.ref);
    let result: Omit<RestoreResult, 'leaks'>;
    try {
      this.#team = await AccessorTeam.start(served, pager, this.#job.accessors);
      result = await this.#restore(served, pager, this.#team);
    } finally {
      await this.#team?.stop();
      served.close();
      await pager.close({ missing: 'leave' }); // nobody accesses the memory any more
      await source.closed;
    }
    const mapped = pager.layout.regions.flatMap(({ hva, length }) =>
      hva === undefined ? [] : [{ start: hva, length }],
    );
    const leaks = await leaksSince(before, mapped, this.#team.processes);
    return { ...result, ok: result.ok && (leaks === undefined || isClean(leaks)), leaks };
  }

  async #open(served: Served, source: SourceRef): Promise<Pager> {
    const { image, memory, pageSize, policy } = this.#job;
    const length = BigInt(image.length);
    const pager = await openPager({
      backend: served.backend,
      regions: [{ gpa: gpa(image.base), length, sourceOffset: fileOffset(0), memory, pageSize }],
      source,
      needs: ['vmm', 'kernel'],
      policy,
    });
    const trouble = ({ code, message, hint }: DemandPagingError): void =>
      this.#tell({ kind: 'trouble', failure: { code, message, hint } });
    pager.on('retrying', (_pages, _attempt, error) => trouble(error));
    pager.on('source-failed', (_pages, error) => trouble(error));
    pager.on('stopped', trouble);
    this.#tell({ kind: 'opened', backend: served.chosen, pages: pager.layout.pageCount });
    return pager;
  }

  async #restore(served: Served, pager: Pager, team: AccessorTeam): Promise<Omit<RestoreResult, 'leaks'>> {
    const { path, base, length } = this.#job.image;
    using image = ImageFile.open(path, base, this.#job.pageSize, length);
    const expected = this.#expectation(pager, image);
    const started = performance.now();
    const progress = setInterval(() => {
      const elapsed_ms = performance.now() - started;
      this.#tell({ kind: 'progress', phase: this.#phase, statistics: pager.statistics(), elapsed_ms });
    }, PROGRESS_MS);
    try {
      const paged = await Promise.race([this.#page(pager, team, expected, started), this.#cut]);
      this.#phase = 'checking';
      const verified = await Promise.race([
        verify(pager.memory!, image, this.#words, this.#job.pageSize),
        this.#cut,
      ]);
      const right = paged.accessors.every((each) => each.right) && !paged.its?.differences.length;
      return {
        ...paged,
        ok: right && verified.wrong_bytes === 0 && !pager.stopped,
        backend: served.chosen,
        unavailable: team.unavailable,
        statistics: pager.statistics(),
        verify: verified,
      };
    } finally {
      clearInterval(progress);
    }
  }

  /** Lets everybody at the memory at once: accessors, the restore of the GIC, the prefetch. */
  async #page(pager: Pager, team: AccessorTeam, expected: Expectation, started: number): Promise<Paged> {
    let complete_ms: number | undefined;
    pager.on('complete', () => (complete_ms ??= performance.now() - started));
    const [its, accessors, prefetch] = await Promise.all([
      this.#vm && new ItsRestore(this.#vm, pager.memory!).run(),
      team.walk(expected, this.#job.seed),
      this.#job.prefetch ? pager.prefetch(this.#prefetchOrder()) : undefined,
    ]);
    const firsts = accessors.map(({ firstAccess_ms }) => firstAccess_ms);
    return {
      accessors,
      its,
      prefetch,
      firstAccess_ms: firsts.length > 0 ? Math.min(...firsts) : undefined,
      complete_ms: complete_ms ?? performance.now() - started,
    };
  }

  /** The tables come last: their restore brings what it needs by itself. */
  #prefetchOrder(): readonly GpaRange[] {
    const { image, table_bytes } = this.#job;
    const split = image.base + BigInt(table_bytes);
    const ranges = [
      { start: gpa(split), length: BigInt(image.length - table_bytes) },
      { start: gpa(image.base), length: BigInt(table_bytes) },
    ];
    return ranges.filter(({ length }) => length > 0n);
  }

  /** Every page but those that restoring the GIC writes: what they hold depends on when one looks. */
  #expectation({ layout }: Pager, image: ImageFile): Expectation {
    const written = new Set([...this.#words.keys()].map((address) => layout.pageAt(address)));
    const pages: PageRange[] = [];
    let checksum = 0;
    const bytes = new Uint8Array(this.#job.pageSize);
    for (let page = 0; page < layout.pageCount; page++) {
      if (written.has(page)) continue;
      const last = pages.at(-1);
      if (last && last.first + last.count === page)
        pages[pages.length - 1] = { ...last, count: last.count + 1 };
      else pages.push({ first: page, count: 1 });
      image.readInto(page * bytes.length, bytes);
      checksum = addPage(checksum, page, bytes);
    }
    return { pages, checksum };
  }
}
