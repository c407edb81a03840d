import fc from 'fast-check';
import { mustEnd, mustRead } from '../expectations.js';
import { must } from '../failure.js';
import { type Manifest, property } from '../property.js';
import { canRead, waitingSites } from '../scenario.js';
import { pause, settled } from '../environment.js';

const PAGES = 6;

/** Sites that wait for a page and report when it is unavailable. */
const sitesOf = (manifest: Manifest) => {
  const waiting = waitingSites(manifest);
  return (waiting.length > 0 ? waiting : manifest.sites).filter(
    (site) => manifest.mayFail.includes(site) && canRead(site),
  );
};

export const handlerDeathIsSeen = property<{ readonly waiting: readonly number[]; readonly late: number }>({
  name: 'handler-death-is-seen',
  claim: 'a resolver that fails says so, and leaves no access waiting: what is missing is poisoned',
  about: 'reads',
  level: 'pager',
  pages: PAGES,
  fatalSource: true,
  unless: (manifest) =>
    !manifest.supports.verbs.includes('poison')
      ? 'pages cannot be poisoned here'
      : !manifest.deterministic && waitingSites(manifest).length === 0
        ? 'no site that can be exercised here waits for a page'
        : sitesOf(manifest).length === 0
          ? 'no site that can be exercised here survives the failure of its page'
          : undefined,
  plan: () =>
    fc.record({
      waiting: fc.array(fc.nat(PAGES - 1), { minLength: 1, maxLength: 4 }),
      late: fc.nat(PAGES - 1),
    }),
  *body(environment, { waiting, late }, manifest) {
    const sites = sitesOf(manifest);
    const touches = waiting.map((page, i) => environment.touch({ site: sites[i % sites.length]!, page }));
    yield pause;
    environment.breakHandler();
    yield {
      for: 'the-stopped-event',
      until: () => environment.pager.events.some(({ kind }) => kind === 'stopped'),
    };
    touches.push(environment.touch({ site: sites[0]!, page: late }));
    const request = environment.pager.do('ensure', { first: 0, count: PAGES });
    yield settled(...touches, request);
    must(request.error !== undefined, () => ({
      kind: 'operation-granted',
      operation: request.ref,
      after: 'resolver-failure',
    }));
    for (const touch of touches) {
      mustEnd(touch, 'errored', 'injected', 'done');
      if (touch.end === 'done') mustRead(environment, touch, 'original');
    }
  },
});
