import fc from 'fast-check';
import { type AccessSite, type PageIndex, type PageRange } from '../../api/index.js';
import { mustBeServed, mustEnd, mustSucceed } from '../expectations.js';
import { must } from '../failure.js';
import { type Manifest, property } from '../property.js';
import { BareResolver, mustHaveOutcome } from '../resolving.js';
import {
  type Action,
  canRead,
  covers,
  runActions,
  noneStarted,
  scenario,
  waitingSites,
} from '../scenario.js';
import { pause, settled } from '../environment.js';

const PAGES = 4;

const failing = ({ coverage, sites, mayFail }: Manifest): readonly AccessSite[] =>
  sites.filter(
    (site) =>
      mayFail.includes(site) &&
      canRead(site) &&
      coverage.some((row) => row.site === site && row.effect !== 'unmediated'),
  );

const unless = (manifest: Manifest): string | undefined =>
  !manifest.supports.verbs.includes('poison')
    ? 'pages cannot be poisoned here'
    : failing(manifest).length === 0
      ? 'no access can be made here that survives poison'
      : undefined;

export const poisonIsSticky = property<{
  readonly site: AccessSite;
  readonly waits: boolean;
  readonly times: number;
}>({
  name: 'poison-is-sticky',
  claim: 'a poisoned page fails every access to it, time after time, and no fault of it is delivered',
  about: 'reads',
  level: 'port',
  pages: PAGES,
  unless,
  plan: (manifest) =>
    fc.record({
      site: fc.constantFrom(...failing(manifest)),
      waits: fc.boolean(),
      times: fc.integer({ min: 1, max: 3 }),
    }),
  *body(environment, { site, waits, times }) {
    const bare = new BareResolver(environment);
    const before = waits ? [environment.touch({ site, page: 1 })] : [];
    yield pause;
    const result = bare.row({ verb: 'poison', pages: { first: 1, count: 1 } });
    mustHaveOutcome(1, result, 'installed');
    yield settled(...before);
    bare.take();
    const asked = bare.faults.length;
    for (let time = 0; time < times; time++) {
      const touch = environment.touch({ site, page: 1 });
      while (!touch.settled && bare.faults.length === asked) {
        bare.take();
        yield pause;
      }
      must(bare.faults.length === asked, () => ({ kind: 'fault-for-poison', access: touch.ref }));
      mustEnd(touch, 'errored');
    }
  },
});

export const poisonOutlastsRequests = property<{
  readonly poisoned: number;
  readonly actions: readonly Action[];
}>({
  name: 'poison-is-sticky',
  part: 'whatever is asked of the pager',
  claim: 'no prefetch, request or thaw brings contents to a poisoned page',
  about: 'reads',
  level: 'pager',
  pages: PAGES,
  unless,
  plan: (manifest) =>
    fc.record({
      poisoned: fc.nat(PAGES - 1),
      actions: scenario(manifest, {
        pages: PAGES,
        sites: failing(manifest),
        of: ['read', 'read', 'prefetch', 'ensure', 'freeze', 'thaw', 'protect'],
      }),
    }),
  *body(environment, { poisoned, actions }, manifest) {
    const poison = environment.pager.do('poison', { first: poisoned, count: 1 });
    yield settled(poison);
    mustSucceed(poison);
    const into = noneStarted();
    yield* runActions(environment, actions, into);
    const last = environment.touch({ site: failing(manifest)[0]!, page: poisoned });
    yield settled(last);
    for (const read of [...into.reads, last]) if (read.page === poisoned) mustEnd(read, 'errored');
  },
});

/** Sites that wait for a missing page, and survive a poisoned one. */
const surviving = (manifest: Manifest): readonly AccessSite[] =>
  failing(manifest).filter((site) => waitingSites(manifest).includes(site));

export const poisonGoesWithThePage = property<{
  readonly site: AccessSite;
  readonly poisoned: PageRange;
  /** One of these. */
  readonly dropped: PageIndex;
  readonly by: 'discard-zero' | 'discard-refetch';
}>({
  name: 'poison-is-sticky',
  part: 'until the page is dropped',
  claim:
    'a poisoned page that is discarded reads as zeros or is fetched, as was asked; its neighbours stay poisoned',
  about: 'reads',
  level: 'pager',
  pages: PAGES,
  unless: (manifest) =>
    unless(manifest) ??
    (!manifest.supports.discard
      ? 'pages cannot be dropped here'
      : surviving(manifest).length === 0
        ? 'no site that can be exercised here waits for a page and survives its failure'
        : undefined),
  plan: (manifest) =>
    fc
      .record({ first: fc.nat(PAGES - 1), count: fc.integer({ min: 1, max: PAGES }) })
      .map(({ first, count }) => ({ first, count: Math.min(count, PAGES - first) }))
      .chain((poisoned) =>
        fc.record({
          site: fc.constantFrom(...surviving(manifest)),
          poisoned: fc.constant(poisoned),
          dropped: fc.nat(poisoned.count - 1).map((index) => poisoned.first + index),
          by: fc.constantFrom('discard-zero' as const, 'discard-refetch' as const),
        }),
      ),
  *body(environment, { site, poisoned, dropped, by }) {
    const poison = environment.pager.do('poison', poisoned);
    yield settled(poison);
    mustSucceed(poison);
    const drop = environment.pager.do(by, { first: dropped, count: 1 });
    yield settled(drop);
    mustSucceed(drop);
    const reads = Array.from({ length: PAGES }, (_, page) => environment.touch({ site, page }));
    yield settled(...reads);
    for (const read of reads) {
      const isDropped = read.page === dropped;
      if (!isDropped && covers(poisoned, read.page)) mustEnd(read, 'errored');
      else mustBeServed(environment, read, isDropped && by === 'discard-zero' ? 'zeros' : 'original');
    }
  },
});
