import { type PageIndex } from './address.js';
import { DemandPagingError } from './error.js';
import { type FaultQueue } from './fault-queue.js';
import { type Fetching } from './fetching.js';
import { type Installer } from './installer.js';
import { type MemoryLayout } from './layout.js';
import { type PageStates } from './page-states.js';
import { type PagerPolicy } from './policy.js';
import { type RangeJob } from './range-job.js';
import { type RangeJobs } from './range-jobs.js';
import { type PageSource } from './source.js';
import { type InstallablePages } from './installable-pages.js';

export interface JobChunksOptions {
  readonly layout: MemoryLayout;
  readonly states: PageStates;
  readonly policy: PagerPolicy;
  readonly source: PageSource;
  readonly jobs: RangeJobs;
  readonly installable: InstallablePages;
  readonly fetching: Fetching;
  readonly installer: Installer;
  /** Pages that accesses wait for: serving the accesses brings them. */
  readonly queue: FaultQueue;
}

/**
 * Takes jobs apart into chunks and has them fetched, as far as there is room beside what accesses wait for.
 */
export class JobChunks {
  readonly #o: JobChunksOptions;

  constructor(options: JobChunksOptions) {
    this.#o = options;
  }

  /** A chunk could be taken now. `idle`: of a prefetch, too. */
  ready(idle: boolean): boolean {
    const { jobs, fetching } = this.#o;
    const { inFlight } = fetching;
    if (jobs.ensuringLeft() && inFlight.roomFor('ensured') > 0) return true;
    return idle && jobs.prefetchLeft() && inFlight.roomFor('prefetch') > 0;
  }

  /** Takes chunks of `ensured` jobs: what the program asked for by name. */
  ensure(): void {
    this.#run(this.#o.jobs.ensuring);
  }

  /** Takes chunks of `prefetch` jobs. Called when no access waits. */
  prefetch(): void {
    this.#run(this.#o.jobs.prefetching);
  }

  /** As many as there is room for; of a synchronous source one, so that faults are taken between chunks. */
  #run(jobs: readonly RangeJob[]): void {
    const { inFlight } = this.#o.fetching;
    for (const job of jobs) {
      for (let room = inFlight.roomFor(job.why); !job.exhausted && room > 0; room = inFlight.roomFor(job.why))
        if (this.#chunk(job, room) && this.#o.source.synchronous) return;
    }
  }

  /** Takes the next chunk of a job; false if the pages that it looked at need no fetch. */
  #chunk(job: RangeJob, room: number): boolean {
    const { states, layout, policy, installable, fetching, source } = this.#o;
    const page = job.next(states);
    if (page === undefined) return false;
    if (this.#passes(job, page)) return false;
    const region = layout.regionOf(page);
    const affordable = source.synchronous ? Infinity : Math.max(1, Math.floor(room / region.pageSize));
    const most = Math.min(policy.prefetchPages, affordable, fetching.mostPages(page));
    const end = Math.min(page + most, job.end, region.firstPage + region.pageCount);
    const run = installable.fetchable(page, end, page);
    job.take(run.count);
    fetching.chunk(run, job);
    return true;
  }

  /** Whether a job has to skip a page: it is unavailable, or is brought otherwise. */
  #passes(job: RangeJob, page: PageIndex): boolean {
    const { states, installable, fetching, installer, queue } = this.#o;
    const state = states.stateOf(page);
    if (state === 'poisoned' && job.why === 'ensured')
      job.reject(new DemandPagingError('PAGE_POISONED', 'the page is poisoned'));
    if (state === 'unmapped' && job.why === 'ensured')
      job.reject(new DemandPagingError('MEMORY_GONE', 'the page is no longer mapped'));
    const held = installable.isHeld(page);
    if (state === 'missing' && !held && !fetching.inFlight.find(page) && !queue.has(page)) return false;
    job.pass(1); // before the zeros: what their installing leads to may rewind the job
    if (state === 'removed' && job.why === 'ensured' && !held) installer.zero({ first: page, count: 1 });
    return true;
  }
}
