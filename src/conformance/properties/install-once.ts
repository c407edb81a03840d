import fc from 'fast-check';
import { mustReadBytes } from '../expectations.js';
import { property } from '../property.js';
import { BareResolver, mustHaveOutcome } from '../resolving.js';
import { canRead, stamp, waitingSites } from '../scenario.js';
import { pause, settled } from '../environment.js';

/** Where the guest writes, beside what is compared. */
const OFFSET = 64;

export const installOnce = property<{
  readonly count: number;
  readonly waiting: number;
  readonly written: readonly number[];
}>({
  name: 'install-once',
  claim: 'a second installation of a page changes nothing: what was installed, and written since, stays',
  about: 'backend',
  level: 'port',
  pages: 6,
  unless: () => undefined,
  plan: () =>
    fc.record({
      count: fc.integer({ min: 1, max: 4 }),
      waiting: fc.nat(3),
      written: fc.uniqueArray(fc.nat(3), { maxLength: 3 }),
    }),
  *body(environment, { count, waiting, written }, manifest) {
    const bare = new BareResolver(environment);
    const pages = { first: 0, count };
    const site = waitingSites(manifest).find(canRead);
    const waiters = site
      ? Array.from({ length: Math.min(waiting, count) }, (_, page) => environment.touch({ site, page }))
      : [];
    const first = yield* bare.through(pages, bare.original(pages));
    mustHaveOutcome(pages.first, first, 'installed');
    yield settled(...waiters);
    const writes = written
      .filter((page) => page < count)
      .map((page) => environment.touch({ site: 'vmm-store', page, offset: OFFSET, bytes: stamp(page) }));
    yield settled(...writes);
    for (let page = 0; page < count; page++) {
      const again = bare.install({ first: page, count: 1 }, environment.contents.foreign(page));
      mustHaveOutcome(page, again, 'already-present', 0);
      yield pause;
    }
    const reads = Array.from({ length: count }, (_, page) =>
      environment.touch({ page, length: environment.contents.page_bytes }),
    );
    yield settled(...reads);
    for (const read of reads) {
      const bytes = environment.contents.page(read.page).slice();
      const isWritten = written.includes(read.page);
      if (isWritten) bytes.set(stamp(read.page), OFFSET);
      mustReadBytes(environment, read, bytes, isWritten ? 'written' : 'original');
    }
  },
});
