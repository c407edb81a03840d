import fc from 'fast-check';
import { must } from '../failure.js';
import { property } from '../property.js';
import { waitingSites } from '../scenario.js';
import { pause, settled } from '../stage.js';

const PAGES = 6;

export const handlerDeathIsSeen = property<{ readonly waiting: readonly number[]; readonly late: number }>({
  name: 'handler-death-is-seen',
  claim: 'a resolver that fails says so, and leaves nobody waiting: what is missing is poisoned',
  level: 'pager',
  pages: PAGES,
  unless: ({ deterministic, supports }) =>
    !deterministic
      ? 'a handler cannot be made to fail from outside here'
      : supports.verbs.includes('poison')
        ? undefined
        : 'pages cannot be poisoned here',
  plan: () => fc.record({ waiting: fc.array(fc.nat(PAGES - 1), { maxLength: 4 }), late: fc.nat(PAGES - 1) }),
  *body(stage, { waiting, late }, manifest) {
    const site = waitingSites(manifest)[0] ?? stage.sites[0]!;
    const touches = waiting.map((page) => stage.touch({ site, page }));
    yield pause;
    stage.breakHandler();
    yield {
      what: "the resolver's end to be said",
      until: () => stage.pager.notices.some(({ kind }) => kind === 'stopped'),
    };
    touches.push(stage.touch({ site, page: late }));
    const request = stage.pager.do('ensure', { first: 0, count: PAGES });
    yield settled(...touches, request);
    must(request.error !== undefined, 'a request to a resolver that has failed was granted');
    for (const { bytes, end, name, page } of touches) {
      const seen = stage.contents.recognise(bytes, page);
      must(
        end === 'errored' || (end === 'done' && seen === 'original'),
        () => `${name}: ${end}, ${stage.contents.describe(bytes)}`,
      );
    }
  },
});
