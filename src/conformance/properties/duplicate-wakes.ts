import fc from 'fast-check';
import { type AccessSite } from '../../api/index.js';
import { type Manifest, property } from '../property.js';
import { BareResolver, mustHaveOutcome } from '../resolving.js';
import { canRead, waitingSites } from '../scenario.js';
import { pause, settled } from '../environment.js';

const readingSites = (manifest: Manifest): readonly AccessSite[] => waitingSites(manifest).filter(canRead);

export const duplicateWakes = property<{ readonly sites: readonly number[]; readonly page: number }>({
  name: 'duplicate-wakes',
  claim: 'installing a page that is there already wakes the accesses that wait for it',
  about: 'reads',
  level: 'port',
  pages: 4,
  coversWaking: true,
  unless: (manifest) =>
    readingSites(manifest).length === 0 ? 'no site that can be exercised here waits for a page' : undefined,
  plan: (manifest) =>
    fc.record({
      sites: fc.array(fc.nat(readingSites(manifest).length - 1), { minLength: 1, maxLength: 3 }),
      page: fc.nat(3),
    }),
  *body(environment, { sites, page }, manifest) {
    const bare = new BareResolver(environment);
    const pages = { first: page, count: 1 };
    const possible = readingSites(manifest);
    const waiters = sites.map((site) => environment.touch({ site: possible[site % possible.length]!, page }));
    while (bare.faults.length < waiters.length) {
      bare.take();
      yield pause;
    }
    const first = bare.install(pages, environment.contents.page(page), false);
    mustHaveOutcome(page, first, 'installed');
    yield pause;
    const again = bare.install(pages, environment.contents.page(page));
    mustHaveOutcome(page, again, 'already-present');
    yield settled(...waiters);
  },
});
