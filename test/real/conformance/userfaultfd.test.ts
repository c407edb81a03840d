import { expect, test } from 'vitest';
import { conformance, inapplicable, type RealSubject } from 'demand-paging/conformance';
import { REPLAY, RUNS_FACTOR } from '../../conformance/runs.js';
import { suiteRunner } from '../../support/suite-runner.js';
import { USERFAULTFD_SUBJECTS } from './userfaultfd-subjects.js';

/** Each run has a kernel, threads and a process to itself; chance is the machine's. */
const RUNS = 20;

/** What this host lacks for a subject, if anything. */
function lackOf(subject: RealSubject): string | undefined {
  const lacking = subject
    .backend()
    .probe()
    .list.filter(({ met }) => !met);
  return lacking.length === 0
    ? undefined
    : lacking.map(({ what, remedy }) => `${what}: ${remedy}`).join('; ');
}

for (const { subject, except } of USERFAULTFD_SUBJECTS) {
  const runs = RUNS * RUNS_FACTOR;
  const lack = lackOf(subject);
  conformance(suiteRunner(lack, 120_000 * RUNS_FACTOR), subject, { runs, ...REPLAY, except });

  test(`what does not apply to ${subject.name} is what follows from its manifest`, async (context) => {
    if (lack !== undefined) context.skip(lack);
    expect([...(await inapplicable(subject)).keys()]).toEqual(except);
  });
}
