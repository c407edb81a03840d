import fc from 'fast-check';
import { mustEnd } from '../expectations.js';
import { must } from '../failure.js';
import { property } from '../property.js';
import {
  act,
  type Action,
  covers,
  everything,
  runActions,
  noneStarted,
  scenario,
  waitingSites,
} from '../scenario.js';
import { settled } from '../environment.js';

const PAGES = 5;

export const writeProtectIsAtomic = property<{
  readonly before: readonly Action[];
  readonly after: readonly Action[];
}>({
  name: 'write-protect-is-atomic',
  claim:
    'after write protection is on, no write goes unreported: neither to a page that was there nor to one that comes later',
  about: 'accesses',
  at: ['vmm-store'],
  level: 'pager',
  pages: PAGES,
  unless: (manifest) =>
    !manifest.supports.faults.includes('write-protect')
      ? 'there is no write protection here'
      : waitingSites(manifest).includes('vmm-store')
        ? undefined
        : 'no site that can be exercised here writes to memory and waits',
  plan: (manifest) =>
    fc.record({
      before: scenario(manifest, {
        pages: PAGES,
        most: 4,
        wait: false,
        sites: ['vmm-store'],
        of: ['write', 'ensure', 'prefetch'],
      }),
      after: scenario(manifest, {
        pages: PAGES,
        most: 8,
        sites: ['vmm-store'],
        of: ['write', 'write', 'write', 'ensure', 'prefetch'],
      }),
    }),
  *body(environment, { before, after }) {
    const into = noneStarted();
    for (const action of before) act(environment, action, into, { offset: 32 });
    const protect = environment.pager.do('protect', everything(environment));
    yield settled(protect);
    yield* runActions(environment, after, into, { offset: 32 });
    for (const write of into.writes) {
      const { page, started } = write;
      mustEnd(write, 'done');
      if (started <= protect.ended) continue;
      const reported = (): boolean =>
        environment.pager.events.some((event) => event.kind === 'written' && covers(event.pages, page));
      if (!environment.exact) yield { for: 'the-written-event', until: reported };
      must(reported(), () => ({ kind: 'event-lost', event: 'written', access: write.ref }));
    }
  },
});
