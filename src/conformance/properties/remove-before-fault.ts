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

const PAGES = 4;

export const removeBeforeFault = property<readonly Action[]>({
  name: 'remove-before-fault',
  claim: 'a fault that is read ahead of the removal before it is not served with the old contents',
  about: 'reads',
  level: 'pager',
  pages: PAGES,
  unless: (manifest) =>
    waitingSites(manifest).length === 0
      ? 'no site that can be exercised here waits for a page'
      : possible(manifest, ['discard']).length > 0
        ? undefined
        : 'other threads cannot remove pages here, or are not noticed',
  plan: (manifest) =>
    scenario(manifest, { pages: PAGES, span: 2, most: 10, of: ['read', 'read', 'read', 'discard'] }),
  *body(environment, actions) {
    const into = noneStarted();
    yield* runActions(environment, actions, into);
    for (const read of into.reads) {
      const { page, started, ended } = read;
      mustEnd(read, 'done');
      const touched = environment.exact ? ended : started; // the latest moment at which it cannot yet have touched the page
      if (!into.removals.some(({ pages, task }) => covers(pages, page) && task.ended < touched)) continue;
      mustRead(environment, read, 'zeros');
    }
  },
});
