import fc from 'fast-check';
import { type FailurePolicy } from '../../api/index.js';
import { mustBeServed, mustEnd } from '../expectations.js';
import { must } from '../failure.js';
import { property } from '../property.js';
import { waitingSites } from '../scenario.js';
import { type SourceFault } from '../scripted-source.js';
import { pause, settled } from '../environment.js';

const PAGES = 6;

interface Plan {
  readonly fault: SourceFault;
  readonly policy: FailurePolicy;
  readonly page: number;
  readonly retries: number;
  readonly synchronous: boolean;
}

export const sourceFailureIsLoud = property<Plan>({
  name: 'source-failure-is-loud',
  claim: 'an access whose page the source cannot give fails, and the pager says so; it never reads anything',
  about: 'reads',
  level: 'pager',
  pages: PAGES,
  unless: (manifest) =>
    !manifest.supports.verbs.includes('poison')
      ? 'pages cannot be poisoned here, so an access that waits for one cannot be let go'
      : waitingSites(manifest).some((site) => manifest.mayFail.includes(site))
        ? undefined
        : 'no site that can be exercised here waits for a page and survives its failure',
  plan: ({ supports, deterministic }) =>
    fc.record({
      // A time-out would be a matter of the clock where there is one.
      fault: fc.constantFrom<SourceFault>(
        'throws',
        'short',
        'long',
        ...(deterministic ? (['never'] as const) : []),
      ),
      policy: fc.constantFrom<FailurePolicy>(
        'stop',
        'poison',
        ...(supports.verbs.includes('fail') ? (['fail'] as const) : []),
      ),
      page: fc.nat(PAGES - 1),
      retries: fc.nat(2),
      synchronous: fc.boolean(),
    }),
  policy: ({ policy, retries }) => ({ onSourceFailure: policy, retries, retryDelay_ms: 1 }),
  synchronous: ({ synchronous, fault }) => synchronous && fault !== 'never',
  *body(environment, { page, fault, policy }, manifest) {
    const site = waitingSites(manifest).find((each) => manifest.mayFail.includes(each))!;
    environment.source.fail(page, fault);
    const touch = environment.touch({ site, page });
    yield settled(touch);
    mustEnd(touch, 'errored');
    // Events arrive on their own way, where threads are real.
    yield {
      for: 'the-source-failed-event',
      until: () =>
        environment.exact ||
        environment.pager.events.some(({ kind }) => kind === 'source-failed' || kind === 'stopped'),
    };
    const seen = environment.pager.events.map(({ kind }) => kind);
    const expected = ['source-failed', ...(policy === 'stop' ? ['stopped'] : [])];
    must(seen.includes('source-failed') && seen.includes('stopped') === (policy === 'stop'), () => ({
      kind: 'wrong-events',
      seen,
      expected,
    }));
    if (policy === 'stop') return;
    const other = environment.touch({ site, page: (page + 1) % PAGES });
    yield settled(other);
    mustEnd(other, 'done');
    if (policy === 'poison') return;
    environment.source.fail(page, fault, 0);
    yield pause;
    const again = environment.touch({ site, page });
    yield settled(again);
    mustBeServed(environment, again);
  },
});
