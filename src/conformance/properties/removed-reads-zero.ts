import { mustEnd, mustRead } from '../expectations.js';
import { property } from '../property.js';
import {
  type Action,
  covers,
  runActions,
  noneStarted,
  possible,
  scenario,
  waitingSites,
} from '../scenario.js';

const PAGES = 6;

export const removedReadsZero = property<readonly Action[]>({
  name: 'removed-reads-zero',
  claim:
    'once a removal is over the pages read as zeros: never as what they held, never as what the source has',
  about: 'reads',
  level: 'pager',
  pages: PAGES,
  unless: (manifest) =>
    waitingSites(manifest).length === 0
      ? 'no site that can be exercised here waits for a page'
      : possible(manifest, ['discard', 'discard-zero']).length === 0
        ? 'pages cannot be removed here'
        : undefined,
  plan: (manifest) =>
    scenario(manifest, {
      pages: PAGES,
      wait: true,
      most: 12,
      of: ['read', 'read', 'ensure', 'prefetch', 'discard', 'discard-zero'],
    }),
  *body(environment, actions) {
    const into = noneStarted();
    yield* runActions(environment, actions, into);
    for (const read of into.reads) {
      const { page, started } = read;
      mustEnd(read, 'done');
      if (!into.removals.some(({ pages, task }) => covers(pages, page) && task.ended <= started)) continue;
      mustRead(environment, read, 'zeros');
    }
  },
});
