import { type AccessSite, classOf, type PageRange, type Pager } from '../api/index.js';
import { type Accessor, type Walk } from '../accessors/index.js';
import { isUnavailable, type Served } from './restore-backend.js';
import { type AccessorResult } from './restore-job.js';

/** What every accessor is to see: the pages it goes to, and the checksum of their contents. */
export interface Expectation {
  readonly pages: readonly PageRange[];
  readonly checksum: number;
}

/** Accessors of several classes on one pager's memory. */
export class AccessorTeam {
  /** Sites that cannot be exercised on this host, and why. */
  readonly unavailable: readonly { readonly site: AccessSite; readonly why: string }[];

  private constructor(
    private readonly accessors: readonly Accessor[],
    unavailable: AccessorTeam['unavailable'],
  ) {
    this.unavailable = unavailable;
  }

  /** Starts `count` accessors, one site after the other, and tells the pager whose threads they are. */
  static async start(served: Served, pager: Pager, count: number): Promise<AccessorTeam> {
    const sites = Array.from({ length: count }, (_, n) => served.sites[n % served.sites.length]!);
    const outcomes = await Promise.allSettled(sites.map((site) => served.startAccessor(site, pager.layout)));
    const accessors = outcomes.flatMap((outcome) => (outcome.status === 'fulfilled' ? [outcome.value] : []));
    const failures = outcomes.flatMap((outcome, index) =>
      outcome.status === 'rejected' ? [{ site: sites[index]!, error: outcome.reason as unknown }] : [],
    );
    const team = new AccessorTeam(
      accessors,
      failures.flatMap(({ site, error }) => (isUnavailable(error) ? [{ site, why: error.message }] : [])),
    );
    try {
      for (const { error } of failures) if (!isUnavailable(error)) throw error;
      for (const { thread, site } of accessors) {
        if (thread !== undefined) await pager.nameThread(thread, classOf(site));
      }
      return team;
    } catch (error) {
      await team.stop();
      throw error;
    }
  }

  /** Lets all of them loose at once; resolves when each has been everywhere. */
  walk(expected: Expectation, seed: number): Promise<AccessorResult[]> {
    return Promise.all(
      this.accessors.map(async (accessor, index): Promise<AccessorResult> => {
        const order = index % 2 === 0 ? 'random' : 'sequential';
        const walk: Walk = {
          pages: turned(expected.pages, index / this.accessors.length),
          order,
          seed: seed + index,
        };
        const report = await accessor.walk(walk);
        const { site, how } = accessor;
        const right = report.failures === 0 && !report.interrupted && report.checksum === expected.checksum;
        return { ...report, site, how, order, right };
      }),
    );
  }

  /** Lets walks end where they are. */
  interrupt(): void {
    for (const accessor of this.accessors) accessor.interrupt();
  }

  /** Process ids of those accessors that are processes of their own. */
  get processes(): number[] {
    return this.accessors.flatMap(({ site, thread }) =>
      site === 'external-vm-readv' && thread !== undefined ? [thread] : [],
    );
  }

  /** Ends all of them; see {@link Accessor.stop}. */
  async stop(): Promise<void> {
    await Promise.all(this.accessors.map((accessor) => accessor.stop()));
  }
}

/** The same pages from another beginning, so that those who go in sequence do not follow each other. */
function turned(pages: readonly PageRange[], part: number): readonly PageRange[] {
  const total = pages.reduce((sum, { count }) => sum + count, 0);
  let skip = Math.floor(total * part);
  const tail: PageRange[] = [];
  const head: PageRange[] = [];
  for (const { first, count } of pages) {
    const cut = Math.min(count, skip);
    skip -= cut;
    if (cut > 0) tail.push({ first, count: cut });
    if (cut < count) head.push({ first: first + cut, count: count - cut });
  }
  return [...head, ...tail];
}
