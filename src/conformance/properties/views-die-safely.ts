import fc from 'fast-check';
import { DemandPagingError } from '../../api/index.js';
import { wrongContents } from '../expectations.js';
import { must } from '../failure.js';
import { property } from '../property.js';
import { settled } from '../environment.js';

const PAGES = 3;

export const viewsDieSafely = property<readonly number[]>({
  name: 'views-die-safely',
  claim: 'memory that was closed is refused with CLOSED: it gives no bytes, and ends no process',
  about: 'backend',
  level: 'pager',
  pages: PAGES,
  unless: ({ local }) => (local ? undefined : 'the memory is not mapped here'),
  plan: () => fc.uniqueArray(fc.nat(PAGES - 1), { minLength: 1, maxLength: PAGES }),
  *body(environment, pages) {
    const into = new Uint8Array(64);
    for (const page of pages) {
      const ensure = environment.pager.do('ensure', { first: page, count: 1 });
      yield settled(ensure);
      environment.pager.load(page, into);
      const seen = environment.contents.recognise(into, page);
      must(seen === 'original', () => wrongContents({ page }, seen, 'original'));
    }
    // Whatever is missing stays missing: closing must not depend on the backend's poison.
    const rest = environment.pager.do('ensure', { first: 0, count: PAGES });
    yield settled(rest);
    yield settled(environment.pager.close());
    for (let page = 0; page < PAGES; page++) {
      let code: string | undefined;
      try {
        environment.pager.load(page, into);
      } catch (error) {
        if (!(error instanceof DemandPagingError)) throw error;
        code = error.code;
      }
      must(code === 'CLOSED', () => ({ kind: 'closed-memory-read', page, error: code }));
    }
  },
});
