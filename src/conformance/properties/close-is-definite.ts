import fc from 'fast-check';
import { mustSucceed } from '../expectations.js';
import { must } from '../failure.js';
import { property } from '../property.js';
import { act, type Action, type Played, played, scenario, waitingSites } from '../scenario.js';
import { pause, settled } from '../stage.js';

const PAGES = 6;

export const closeIsDefinite = property<{
  readonly actions: readonly Action[];
  readonly held: readonly number[];
  readonly late: number;
}>({
  name: 'close-is-definite',
  claim: 'when a pager has closed, nobody waits for it any more; closing again is harmless',
  about: 'reads',
  level: 'pager',
  pages: PAGES,
  judgesWaking: true,
  unless: (manifest) =>
    !manifest.supports.verbs.includes('poison')
      ? 'pages that are missing cannot be poisoned here, so nothing can be said about who waits for them'
      : waitingSites(manifest).some((site) => manifest.mayFail.includes(site))
        ? undefined
        : 'no site that can be exercised here waits for a page and survives its failure',
  plan: (manifest) =>
    fc.record({
      actions: scenario(manifest, {
        pages: PAGES,
        wait: false,
        sites: waitingSites(manifest).filter((site) => manifest.mayFail.includes(site)),
        of: ['read', 'read', 'write', 'ensure', 'prefetch', 'discard', 'withdraw', 'freeze', 'poison'],
      }),
      held: fc.uniqueArray(fc.nat(PAGES - 1), { maxLength: 3 }),
      late: fc.nat(3),
    }),
  *body(stage, { actions, held, late }, manifest) {
    for (const page of held) stage.source.hold(page);
    const into: Played = played();
    for (const action of actions) {
      act(stage, action, into);
      yield pause;
    }
    const closes = [stage.pager.close()];
    yield pause;
    const site = waitingSites(manifest).find((candidate) => manifest.mayFail.includes(candidate))!;
    const lateReads = Array.from({ length: late }, (_, page) => stage.touch({ site, page }));
    closes.push(stage.pager.close());
    yield settled(...closes);
    closes.forEach(mustSucceed);
    yield settled(...into.tasks, ...lateReads);
    const after = stage.pager.do('ensure', { first: 0, count: 1 });
    yield settled(after);
    must(after.error !== undefined, () => ({
      kind: 'operation-granted',
      operation: after.ref,
      after: 'close',
    }));
  },
});
