import fc from 'fast-check';
import { type AccessSite } from '../../api/index.js';
import { must } from '../failure.js';
import { type Manifest, property } from '../property.js';
import { BareResolver } from '../resolving.js';
import { type Action, canRead, play, played, scenario } from '../scenario.js';
import { pause, settled } from '../stage.js';

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
  claim: 'a poisoned page fails every access to it, time after time, and nobody is asked for it',
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
  *body(stage, { site, waits, times }) {
    const bare = new BareResolver(stage);
    const before = waits ? [stage.touch({ site, page: 1 })] : [];
    yield pause;
    const result = bare.row({ verb: 'poison', pages: { first: 1, count: 1 } });
    must(result.outcome === 'installed', `poisoning a missing page was ${result.outcome}`);
    yield settled(...before);
    bare.take();
    const asked = bare.faults.length;
    for (let time = 0; time < times; time++) {
      const touch = stage.touch({ site, page: 1 });
      while (!touch.settled && bare.faults.length === asked) {
        bare.take();
        yield pause;
      }
      must(bare.faults.length === asked, `access ${time + 1} to a poisoned page was asked about`);
      must(touch.end === 'errored', `access ${time + 1} to a poisoned page: ${touch.end}`);
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
  *body(stage, { poisoned, actions }, manifest) {
    const poison = stage.pager.do('poison', { first: poisoned, count: 1 });
    yield settled(poison);
    must(poison.error === undefined, `poisoning a missing page failed with ${poison.error}`);
    const into = played();
    yield* play(stage, actions, into);
    const last = stage.touch({ site: failing(manifest)[0]!, page: poisoned });
    yield settled(last);
    for (const { page, end, name } of [...into.reads, last])
      must(page !== poisoned || end === 'errored', `${name}, which is poisoned: ${end}`);
  },
});
