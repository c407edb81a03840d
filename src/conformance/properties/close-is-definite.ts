import fc from 'fast-check';
import { mustSucceed } from '../expectations.js';
import { must } from '../failure.js';
import { property } from '../property.js';
import { act, type Action, type Started, noneStarted, scenario, waitingSites } from '../scenario.js';
import { pause, settled } from '../environment.js';

const PAGES = 6;

export const closeIsDefinite = property<{
  readonly actions: readonly Action[];
  readonly held: readonly number[];
  readonly late: number;
}>({
  name: 'close-is-definite',
  claim: 'when a pager has closed, no access or request waits for it any more; closing again is harmless',
  about: 'reads',
  level: 'pager',
  pages: PAGES,
  coversWaking: true,
  unless: (manifest) =>
    !manifest.supports.verbs.includes('poison')
      ? 'pages that are missing cannot be poisoned here, so an access that waits for one cannot be let go'
      : waitingSites(manifest).some((site) => manifest.mayFail.includes(site))
        ? undefined
        : 'no site that can be exercised here waits for a page and survives its failure',
  plan: (manifest) =>
    fc.record({
      actions: scenario(manifest, {
        pages: PAGES,
        wait: false,
        sites: waitingSites(manifest).filter((site) => manifest.mayFail.includes(site)),
        of: ['read', 'read', 'write', 'ensure', 'prefetch', 'discard', 'discard-refetch', 'freeze', 'poison'],
      }),
      held: fc.uniqueArray(fc.nat(PAGES - 1), { maxLength: 3 }),
      late: fc.nat(3),
    }),
  *body(environment, { actions, held, late }, manifest) {
    for (const page of held) environment.source.hold(page);
    const into: Started = noneStarted();
    for (const action of actions) {
      act(environment, action, into);
      yield pause;
    }
    const closes = [environment.pager.close()];
    yield pause;
    const site = waitingSites(manifest).find((each) => manifest.mayFail.includes(each))!;
    const lateReads = Array.from({ length: late }, (_, page) => environment.touch({ site, page }));
    closes.push(environment.pager.close());
    yield settled(...closes);
    closes.forEach(mustSucceed);
    yield settled(...into.tasks, ...lateReads);
    const after = environment.pager.do('ensure', { first: 0, count: 1 });
    yield settled(after);
    must(after.error !== undefined, () => ({
      kind: 'operation-granted',
      operation: after.ref,
      after: 'close',
    }));
  },
});
