import fc from 'fast-check';
import { must } from '../failure.js';
import { property } from '../property.js';
import { type Action, covers, everything, played, play, possible, scenario } from '../scenario.js';
import { settled } from '../stage.js';

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
  *body(stage, plan) {
    const into = played();
    const removals = plan.removals.map((action) =>
      'pages' in action
        ? { ...action, pages: { ...action.pages, first: action.pages.first + LOWER } }
        : action,
    );
    yield* play(stage, mixed({ ...plan, removals }), into);
    for (const { page, bytes, end, name } of into.reads) {
      must(end === 'done', `${name} ${end}`);
      must(
        stage.contents.recognise(bytes, page) === 'original',
        () => `${name} read ${stage.contents.describe(bytes)}`,
      );
    }
    const all = stage.pager.do('ensure', everything(stage));
    yield settled(all);
    must(all.error === undefined, `bringing every page ended with ${all.error}`);
    for (let page = 0; page < PAGES; page++) {
      const bytes = stage.look(page);
      const removed = into.removals.some(({ pages }) => covers(pages, page));
      must(bytes !== undefined, `page ${page} was brought and is not there`);
      const seen = stage.contents.recognise(bytes, page);
      must(
        seen === 'original' || (removed && seen === 'zeros'),
        () => `page ${page} holds ${stage.contents.describe(bytes)}`,
      );
    }
  },
});
