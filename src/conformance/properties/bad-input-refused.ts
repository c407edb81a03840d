import fc from 'fast-check';
import { type Resolution } from '../../api/index.js';
import { must } from '../failure.js';
import { property } from '../property.js';
import { BareResolver, type RowResult } from '../resolving.js';
import { pause, type Environment } from '../environment.js';

const PAGES = 4;

/** Each is wrong in one thing, with everything else valid. */
const MISTAKES: Readonly<Record<string, (environment: Environment) => Resolution>> = {
  'no pages': () => ({ verb: 'copy', pages: { first: 1, count: 0 }, from: 0 }),
  'a page past the end': () => ({ verb: 'copy', pages: { first: PAGES, count: 1 }, from: 0 }),
  'a run that passes the end': () => ({ verb: 'copy', pages: { first: PAGES - 1, count: 2 }, from: 0 }),
  'a page before the first': () => ({ verb: 'copy', pages: { first: -1, count: 1 }, from: 0 }),
  'half a page': () => ({ verb: 'copy', pages: { first: 0.5, count: 1 }, from: 0 }),
  'bytes that pass the end of staging': ({ port, contents }) => ({
    verb: 'copy',
    pages: { first: 1, count: 1 },
    from: port.staging.length - contents.page_bytes + 1,
  }),
  'bytes before staging': () => ({ verb: 'copy', pages: { first: 1, count: 1 }, from: -8 }),
};

/** A port may as well take a malformed row for misuse. */
function refusedOr(body: () => RowResult): Pick<RowResult, 'outcome' | 'done'> {
  try {
    return body();
  } catch (error) {
    if (error instanceof RangeError || error instanceof TypeError) return { outcome: 'refused', done: 0 };
    throw error;
  }
}

export const badInputRefused = property<string>({
  name: 'bad-input-refused',
  claim: 'a row that is malformed in any one thing does not succeed, and changes no page',
  about: 'backend',
  level: 'port',
  pages: PAGES,
  unless: ({ supports }) =>
    supports.verbs.includes('copy') ? undefined : 'there is no copy here to get wrong',
  plan: () => fc.constantFrom(...Object.keys(MISTAKES)),
  *body(environment, mistake) {
    const bare = new BareResolver(environment);
    environment.port.staging.set(environment.contents.foreign(1), 0);
    const { outcome, done } = refusedOr(() => bare.row(MISTAKES[mistake]!(environment)));
    const refused = (outcome === 'failed' || outcome === 'refused') && done === 0;
    must(refused, () => ({ kind: 'malformed-but-done', mistake, outcome, done }));
    yield pause;
    for (let page = 0; page < PAGES; page++)
      must(environment.look(page) === undefined, () => ({ kind: 'malformed-but-changed', mistake, page }));
  },
});
