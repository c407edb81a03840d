import fc from 'fast-check';
import { mustBeServed } from '../expectations.js';
import { property } from '../property.js';
import { waitingSites } from '../scenario.js';
import { pause, settled } from '../environment.js';

const PAGES = 4;

export const exitWhileBlocked = property<{
  readonly pages: readonly number[];
  readonly killed: readonly boolean[];
  readonly site: number;
}>({
  name: 'exit-while-blocked-terminates',
  claim:
    'an accessor that is killed while it waits is gone, and every other access is served as if it had never been',
  about: 'reads',
  level: 'pager',
  pages: PAGES,
  unless: (manifest) =>
    waitingSites(manifest).some((site) => manifest.killable.includes(site))
      ? undefined
      : 'no accessor that waits can be killed here',
  plan: () =>
    fc.record({
      pages: fc.array(fc.nat(PAGES - 1), { minLength: 1, maxLength: 4 }),
      killed: fc.array(fc.boolean(), { minLength: 4, maxLength: 4 }),
      site: fc.nat(15),
    }),
  synchronous: () => false,
  *body(environment, { pages, killed, site }, manifest) {
    const sites = waitingSites(manifest).filter((each) => manifest.killable.includes(each));
    for (const page of pages) environment.source.hold(page);
    const touches = pages.map((page, i) =>
      environment.touch({ site: sites[(site + i) % sites.length]!, page }),
    );
    // Threads that have their own time are killed when one of them waits, not before it has begun.
    yield environment.exact ? pause : { for: 'a-fetch', until: () => environment.source.inFlight > 0 };
    const killing = touches.filter((_, i) => killed[i]);
    for (const touch of killing) {
      touch.kill();
      yield pause;
    }
    yield settled(...killing);
    environment.source.resume();
    yield settled(...touches);
    // Through a site that waits: elsewhere a page that no access wanted in the end may never have come.
    const reads = pages.map((page) => environment.touch({ site: sites[0]!, page }));
    yield settled(...reads);
    for (const touch of [...touches.filter((touch) => !killing.includes(touch)), ...reads])
      mustBeServed(environment, touch);
    yield settled(environment.pager.close());
  },
});
