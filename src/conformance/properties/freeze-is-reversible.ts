import fc from 'fast-check';
import { type PageRange } from '../../api/index.js';
import { mustReadBytes, mustSucceed } from '../expectations.js';
import { must } from '../failure.js';
import { property } from '../property.js';
import {
  act,
  type Action,
  covers,
  everything,
  noneStarted,
  scenario,
  stamp,
  waitingSites,
} from '../scenario.js';
import { pause, settled } from '../environment.js';

const PAGES = 5;
const OFFSET = 128;

interface Plan {
  /** Pages brought, and written, before. */
  readonly brought: PageRange | undefined;
  readonly frozen: PageRange;
  readonly actions: readonly Action[];
}

export const freezeIsReversible = property<Plan>({
  name: 'freeze-is-reversible',
  claim: 'an access to a frozen page waits; thawed, it goes on, and the page holds what it held',
  about: 'reads',
  level: 'pager',
  pages: PAGES,
  unless: (manifest) =>
    waitingSites(manifest).length === 0 ? 'no site that can be exercised here waits for a page' : undefined,
  plan: (manifest) => {
    const range = fc
      .tuple(fc.nat(PAGES - 1), fc.integer({ min: 1, max: 3 }))
      .map(([first, count]) => ({ first, count: Math.min(count, PAGES - first) }));
    return fc.record({
      brought:
        manifest.supports.freeze === 'full' ? fc.option(range, { nil: undefined }) : fc.constant(undefined),
      frozen: range,
      actions: scenario(manifest, {
        pages: PAGES,
        most: 6,
        wait: false,
        of: ['read', 'read', 'ensure', 'prefetch'],
      }),
    });
  },
  *body(environment, { brought, frozen, actions }, manifest) {
    const [site] = waitingSites(manifest);
    const written = new Set<number>();
    if (brought) {
      const ensure = environment.pager.do('ensure', brought);
      yield settled(ensure);
      const writes = Array.from({ length: brought.count }, (_, i) =>
        environment.touch({ site: 'vmm-store', page: brought.first + i, offset: OFFSET, bytes: stamp(i) }),
      );
      yield settled(...writes);
      for (let i = 0; i < brought.count; i++) written.add(brought.first + i);
    }
    const freeze = environment.pager.do('freeze', frozen);
    yield settled(freeze);
    mustSucceed(freeze);
    const into = noneStarted();
    for (const action of actions) {
      act(environment, action, into, { whole: true });
      yield pause;
    }
    const early = into.reads.find((read) => covers(frozen, read.page) && read.settled);
    must(early === undefined, () => ({ kind: 'not-stopped', access: early!.ref, page: 'frozen' }));
    const thaw = environment.pager.do('thaw', frozen);
    yield settled(thaw, ...into.tasks);
    const reads = [
      ...into.reads,
      ...Array.from({ length: everything(environment).count }, (_, page) =>
        environment.touch({ site: site!, page, length: environment.contents.page_bytes }),
      ),
    ];
    yield settled(...reads);
    for (const read of reads) {
      const { page } = read;
      const bytes = environment.contents.page(page).slice();
      if (written.has(page)) bytes.set(stamp(page - brought!.first), OFFSET);
      mustReadBytes(environment, read, bytes, written.has(page) ? 'written' : 'original');
    }
  },
});
