import { property } from '../property.js';
import { type Action, runActions, noneStarted, scenario, waitingSites } from '../scenario.js';

const PAGES = 8;
const HARMLESS: readonly Action['do'][] = [
  'read',
  'write',
  'read',
  'write',
  'ensure',
  'prefetch',
  'discard',
  'discard-refetch',
  'discard-zero',
  'freeze',
  'thaw',
  'protect',
  'unprotect',
];

export const noLostWake = property<readonly Action[]>({
  name: 'no-lost-wake',
  claim: 'whatever else happens to the pages, every access and every request comes to an end',
  about: 'accesses',
  level: 'pager',
  pages: PAGES,
  coversWaking: true,
  unless: (manifest) =>
    waitingSites(manifest).length === 0 ? 'no site that can be exercised here waits for a page' : undefined,
  plan: (manifest) => {
    // An access that ends its process when it fails must not meet what makes it fail.
    const survivors = waitingSites(manifest).filter((site) => manifest.mayFail.includes(site));
    const may = survivors.length > 0;
    return scenario(manifest, {
      pages: PAGES,
      sites: may ? survivors : waitingSites(manifest),
      most: 14,
      of: [...HARMLESS, ...(may ? (['unmap', 'poison'] as const) : [])],
    });
  },
  *body(environment, actions) {
    yield* runActions(environment, actions, noneStarted());
  },
});
