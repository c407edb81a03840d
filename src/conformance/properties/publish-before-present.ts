import { wrongContents } from '../expectations.js';
import { property } from '../property.js';
import { type Action, play, played, scenario } from '../scenario.js';

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
      of: ['read', 'ensure', 'prefetch', ...(manifest.deterministic ? (['withdraw'] as const) : [])],
    }),
  *body(stage, actions) {
    const held = new Uint8Array(PAGES);
    stage.watch(() => {
      for (let page = 0; page < PAGES; page++) {
        const present = stage.pager.isPresent(page) ? 1 : 0;
        if (present === held[page]) continue;
        held[page] = present;
        const bytes = present ? stage.look(page) : undefined;
        const seen = bytes && stage.contents.recognise(bytes, page);
        if (!present || seen === 'original') continue;
        // It may have been withdrawn again since the presence was read, where threads are real.
        if (!stage.exact && !stage.pager.isPresent(page)) continue;
        return seen
          ? wrongContents({ page }, seen, 'original')
          : { kind: 'page-absent', page, because: 'present-state' };
      }
      return undefined;
    });
    yield* play(stage, actions, played());
  },
});
