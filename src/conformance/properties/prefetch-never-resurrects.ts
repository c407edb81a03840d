import fc from 'fast-check';
import { mustBeServed } from '../expectations.js';
import { property } from '../property.js';
import {
  act,
  type Action,
  covers,
  runActions,
  noneStarted,
  possible,
  scenario,
  waitingSites,
} from '../scenario.js';
import { pause, settled } from '../environment.js';

const PAGES = 6;

export const prefetchNeverResurrects = property<{
  readonly held: boolean;
  readonly actions: readonly Action[];
}>({
  name: 'prefetch-never-resurrects',
  claim: 'what is fetched ahead, and arrives after its page was removed, is not installed',
  about: 'backend',
  level: 'pager',
  pages: PAGES,
  unless: (manifest) =>
    waitingSites(manifest).length === 0
      ? 'no site that can be exercised here waits for a page'
      : possible(manifest, ['discard', 'discard-zero']).length === 0
        ? 'pages cannot be removed here'
        : undefined,
  plan: (manifest) =>
    fc.record({
      held: fc.boolean(),
      actions: scenario(manifest, {
        pages: PAGES,
        most: 8,
        of: ['prefetch', 'prefetch', 'ensure', 'discard', 'discard-zero'],
      }),
    }),
  *body(environment, { held, actions }) {
    const into = noneStarted();
    if (held) {
      // Whatever is fetched arrives after every removal is over.
      for (let page = 0; page < PAGES; page++) environment.source.hold(page);
      for (const action of actions) {
        act(environment, action, into);
        yield pause;
      }
      yield settled(...into.removals.map(({ task }) => task));
      environment.source.resume();
      yield settled(...into.tasks);
    } else yield* runActions(environment, actions, into);
    const removed = Array.from({ length: PAGES }, (_, page) => page).filter((page) =>
      into.removals.some(({ pages }) => covers(pages, page)),
    );
    const reads = removed.map((page) => environment.touch({ page }));
    yield settled(...reads);
    for (const read of reads) mustBeServed(environment, read, 'zeros');
  },
});
