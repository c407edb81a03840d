import fc from 'fast-check';
import { mustBeServed } from '../expectations.js';
import { property } from '../property.js';
import { waitingSites } from '../scenario.js';
import { pause, settled } from '../stage.js';

const PAGES = 4;

export const exitWhileBlocked = property<{
  readonly pages: readonly number[];
  readonly killed: readonly boolean[];
  readonly site: number;
}>({
  name: 'exit-while-blocked-terminates',
  claim:
    'an accessor that is killed while it waits is gone, and everybody else is served as if it had never been',
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
  *body(stage, { pages, killed, site }, manifest) {
    const sites = waitingSites(manifest).filter((candidate) => manifest.killable.includes(candidate));
    for (const page of pages) stage.source.hold(page);
    const touches = pages.map((page, i) => stage.touch({ site: sites[(site + i) % sites.length]!, page }));
    // Threads that have their own time are killed when one of them waits, not before it has begun.
    yield stage.exact ? pause : { for: 'a-fetch', until: () => stage.source.underWay > 0 };
    const killing = touches.filter((_, i) => killed[i]);
    for (const touch of killing) {
      touch.kill();
      yield pause;
    }
    yield settled(...killing);
    stage.source.resume();
    yield settled(...touches);
    // Through a site that waits: elsewhere a page that nobody wanted in the end may never have come.
    const reads = pages.map((page) => stage.touch({ site: sites[0]!, page }));
    yield settled(...reads);
    for (const touch of [...touches.filter((touch) => !killing.includes(touch)), ...reads])
      mustBeServed(stage, touch);
    yield settled(stage.pager.close());
  },
});
