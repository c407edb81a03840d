import { property } from '../property.js';
import { type Action, play, played, scenario, waitingSites } from '../scenario.js';

const PAGES = 8;

export const noLostWake = property<readonly Action[]>({
  name: 'no-lost-wake',
  claim: 'whatever else happens to the pages, every access and every request comes to an end',
  level: 'pager',
  pages: PAGES,
  judgesWaking: true,
  unless: (manifest) =>
    waitingSites(manifest).length === 0 ? 'no site that can be exercised here waits for a page' : undefined,
  plan: (manifest) =>
    scenario(manifest, {
      pages: PAGES,
      sites: waitingSites(manifest).filter((site) => manifest.mayFail.includes(site)),
      most: 14,
      of: [
        'read',
        'write',
        'read',
        'write',
        'ensure',
        'prefetch',
        'discard',
        'withdraw',
        'remove',
        'freeze',
        'thaw',
        'protect',
        'unprotect',
        'poison',
      ],
    }),
  *body(stage, actions) {
    yield* play(stage, actions, played());
  },
});
