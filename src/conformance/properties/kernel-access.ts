import { type Effect } from '../../api/index.js';
import { mustBeServed, mustEnd, mustRead, mustSucceed } from '../expectations.js';
import { type Manifest, property } from '../property.js';
import { type Action, runActions, noneStarted, scenario } from '../scenario.js';
import { settled } from '../environment.js';

const PAGES = 5;
const SITE = 'kernel-copy';

/** Why a property about one policy for the kernel's own accesses does not apply. */
function unless({ coverage, sites }: Manifest, effect: Effect): string | undefined {
  if (!sites.includes(SITE)) return "the kernel's own accesses cannot be exercised here";
  const declared = coverage.find(({ site }) => site === SITE)?.effect ?? 'unmediated';
  return declared === effect ? undefined : `the kernel's own accesses are declared '${declared}'`;
}

export const kernelAccessBlocks = property<readonly Action[]>({
  name: 'kernel-access-blocks',
  claim: "the kernel's own access to a missing page waits, as any other, and then sees its contents",
  about: 'reads',
  at: [SITE],
  level: 'pager',
  pages: PAGES,
  unless: (manifest) => unless(manifest, 'blocks'),
  plan: (manifest) =>
    scenario(manifest, { pages: PAGES, sites: [SITE], of: ['read', 'read', 'prefetch', 'discard-refetch'] }),
  *body(environment, actions) {
    const into = noneStarted();
    yield* runActions(environment, actions, into, { whole: true, pieces: 2 });
    for (const read of into.reads) mustBeServed(environment, read);
  },
});

export const kernelAccessRetries = property<readonly Action[]>({
  name: 'kernel-access-errors-then-retries',
  claim:
    "the kernel's own access to a missing page fails; tried again once the page was brought, it sees its contents",
  about: 'reads',
  at: [SITE],
  level: 'pager',
  pages: PAGES,
  unless: (manifest) => unless(manifest, 'errors'),
  plan: (manifest) =>
    scenario(manifest, { pages: PAGES, sites: [SITE], most: 6, of: ['read', 'read', 'discard-refetch'] }),
  *body(environment, actions) {
    const into = noneStarted();
    yield* runActions(environment, actions, into, { whole: true });
    for (const read of into.reads) {
      const { page } = read;
      mustEnd(read, 'errored', 'done');
      if (read.end === 'done') mustRead(environment, read, 'original');
      const ensure = environment.pager.do('ensure', { first: page, count: 1 });
      yield settled(ensure);
      mustSucceed(ensure);
      const again = environment.touch({ site: SITE, page, length: environment.contents.page_bytes });
      yield settled(again);
      mustBeServed(environment, again);
    }
  },
});
