import { mustBeServed } from '../expectations.js';
import { property } from '../property.js';
import { type Action, runActions, noneStarted, scenario, waitingSites } from '../scenario.js';

const PAGES = 8;

export const noTornPage = property<readonly Action[]>({
  name: 'no-torn-page',
  claim: 'a page is seen whole or not at all, and with its own contents, however it is read while it comes',
  about: 'reads',
  level: 'pager',
  pages: PAGES,
  unless: (manifest) =>
    waitingSites(manifest).length === 0 ? 'no site that can be exercised here waits for a page' : undefined,
  plan: (manifest) =>
    scenario(manifest, {
      pages: PAGES,
      of: ['read', 'read', 'read', 'ensure', 'prefetch', 'discard-refetch'],
    }),
  *body(environment, actions) {
    const into = noneStarted();
    yield* runActions(environment, actions, into, { pieces: 4, whole: true });
    // Zeros throughout are another property's affair.
    for (const read of into.reads) mustBeServed(environment, read, 'original-or-zeros');
  },
});
