import fc from 'fast-check';
import { expect, test } from 'vitest';
import { checkProperty, pause, property, PropertyFailure } from 'demand-paging/conformance';
import { USERFAULTFD_SUBJECTS } from './userfaultfd-subjects.js';

const PAGES = 8;
/** Until every thread has reached its page; one that comes later waits all the same. */
const MOMENTS = 40;

/** Fails while threads of this process wait for pages that the source holds back. */
const failing = property<number>({
  name: 'no-torn-page',
  claim: 'this one fails on purpose',
  about: 'reads',
  level: 'pager',
  pages: PAGES,
  unless: () => undefined,
  plan: () => fc.constant(0),
  *body(environment) {
    for (let page = 0; page < PAGES; page++) environment.source.hold(page);
    for (let page = 0; page < PAGES; page++) environment.touch({ site: 'vmm-load', page });
    for (let moment = 0; moment < MOMENTS; moment++) yield pause;
    throw new PropertyFailure({ kind: 'page-absent', page: 0, because: 'brought' });
  },
});

test('what fails while loads of this process wait is told, and does not end the process', async (context) => {
  const { subject } = USERFAULTFD_SUBJECTS[0]!;
  const lacking = subject
    .backend()
    .probe()
    .list.find(({ met }) => !met);
  if (lacking) context.skip(`${lacking.what}: ${lacking.remedy}`);
  for (let time = 0; time < 10; time++) {
    const result = await checkProperty(failing, subject, { runs: 1 });
    expect(result).toMatchObject({ outcome: 'fails', failure: { kind: 'page-absent' } });
  }
});
