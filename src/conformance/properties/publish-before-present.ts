import { wrongContents } from '../expectations.js';
import { property } from '../property.js';
import { type Action, runActions, noneStarted, scenario } from '../scenario.js';

const PAGES = 8;

export const publishBeforePresent = property<readonly Action[]>({
  name: 'publish-before-present',
  claim: 'a page that counts as present has its contents, at every moment',
  about: 'backend',
  level: 'pager',
  pages: PAGES,
  unless: ({ local }) => (local ? undefined : 'the memory cannot be looked at from here'),
  plan: (manifest) =>
    scenario(manifest, {
      pages: PAGES,
      // Where threads are real, a page may go between the look whether it is there and the look at it.
      of: ['read', 'ensure', 'prefetch', ...(manifest.deterministic ? (['discard-refetch'] as const) : [])],
    }),
  *body(environment, actions) {
    const held = new Uint8Array(PAGES);
    environment.watch(() => {
      for (let page = 0; page < PAGES; page++) {
        const present = environment.pager.isPresent(page) ? 1 : 0;
        if (present === held[page]) continue;
        held[page] = present;
        const bytes = present ? environment.look(page) : undefined;
        const seen = bytes && environment.contents.recognise(bytes, page);
        if (!present || seen === 'original') continue;
        // It may have been discarded again since the presence was read, where threads are real.
        if (!environment.exact && !environment.pager.isPresent(page)) continue;
        return seen
          ? wrongContents({ page }, seen, 'original')
          : { kind: 'page-absent', page, because: 'present-state' };
      }
      return undefined;
    });
    yield* runActions(environment, actions, noneStarted());
  },
});
