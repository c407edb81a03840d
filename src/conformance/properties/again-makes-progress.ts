import fc from 'fast-check';
import { mustBeServed, mustSucceed, isExpected, wrongContents } from '../expectations.js';
import { must } from '../failure.js';
import { property } from '../property.js';
import { type Action, covers, everything, noneStarted, runActions, possible, scenario } from '../scenario.js';
import { settled } from '../environment.js';

const LOWER = 6;
const PAGES = 10;

interface Plan {
  /** What happens to the lower pages. */
  readonly wanted: readonly Action[];
  /** Which of the upper pages are removed meanwhile, by whom. */
  readonly removals: readonly Action[];
}

const mixed = ({ wanted, removals }: Plan): readonly Action[] => {
  const all: Action[] = [];
  for (let i = 0; i < Math.max(wanted.length, removals.length); i++)
    all.push(...removals.slice(i, i + 1), ...wanted.slice(i, i + 1));
  return all;
};

export const againMakesProgress = property<Plan>({
  name: 'again-makes-progress',
  claim:
    'while other memory changes (EAGAIN) and rows are cut short, every page still comes, once, with its contents',
  about: 'backend',
  level: 'pager',
  pages: PAGES,
  unless: (manifest) =>
    possible(manifest, ['discard']).length > 0
      ? undefined
      : 'other threads cannot remove pages here, or are not noticed',
  plan: (manifest) =>
    fc.record({
      wanted: scenario(manifest, {
        pages: LOWER,
        wait: false,
        of: ['read', 'ensure', 'prefetch'],
      }),
      removals: scenario(manifest, { pages: PAGES - LOWER, wait: false, most: 4, of: ['discard'] }),
    }),
  *body(environment, plan) {
    const into = noneStarted();
    const removals = plan.removals.map((action) =>
      'pages' in action
        ? { ...action, pages: { ...action.pages, first: action.pages.first + LOWER } }
        : action,
    );
    yield* runActions(environment, mixed({ ...plan, removals }), into);
    for (const read of into.reads) mustBeServed(environment, read);
    const all = environment.pager.do('ensure', everything(environment));
    yield settled(all);
    mustSucceed(all);
    for (let page = 0; page < PAGES; page++) {
      const bytes = environment.look(page);
      const removed = into.removals.some(({ pages }) => covers(pages, page));
      must(bytes !== undefined, () => ({ kind: 'page-absent', page, because: 'brought' }));
      const seen = environment.contents.recognise(bytes, page);
      const expected = removed ? 'original-or-zeros' : 'original';
      must(isExpected(seen, expected), () => wrongContents({ page }, seen, expected));
    }
  },
});
