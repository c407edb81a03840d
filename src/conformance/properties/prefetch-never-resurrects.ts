import fc from 'fast-check';
import { mustBeServed } from '../expectations.js';
import { property } from '../property.js';
import { act, type Action, covers, play, played, possible, scenario, waitingSites } from '../scenario.js';
import { pause, settled } from '../stage.js';

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
      : possible(manifest, ['discard', 'remove']).length === 0
        ? 'pages cannot be removed here'
        : undefined,
  plan: (manifest) =>
    fc.record({
      held: fc.boolean(),
      actions: scenario(manifest, {
        pages: PAGES,
        most: 8,
        of: ['prefetch', 'prefetch', 'ensure', 'discard', 'remove'],
      }),
    }),
  *body(stage, { held, actions }) {
    const into = played();
    if (held) {
      // Whatever is fetched arrives after every removal is over.
      for (let page = 0; page < PAGES; page++) stage.source.hold(page);
      for (const action of actions) {
        act(stage, action, into);
        yield pause;
      }
      yield settled(...into.removals.map(({ task }) => task));
      stage.source.resume();
      yield settled(...into.tasks);
    } else yield* play(stage, actions, into);
    const removed = Array.from({ length: PAGES }, (_, page) => page).filter((page) =>
      into.removals.some(({ pages }) => covers(pages, page)),
    );
    const reads = removed.map((page) => stage.touch({ page }));
    yield settled(...reads);
    for (const read of reads) mustBeServed(stage, read, 'zeros');
  },
});
