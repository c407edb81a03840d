import { expect, test } from 'vitest';
import { conformance, inapplicable } from 'demand-paging/conformance';
import { GUEST_BACKENDS, guestSubject, probeGuest } from 'demand-paging/guests';
import { REPLAY, RUNS_FACTOR } from '../../conformance/runs.js';
import { suiteRunner } from '../../support/suite-runner.js';
import { GUEST_EXCEPTIONS } from './guest-exceptions.js';

/** Each run makes a virtual machine, with threads and a process that access its memory. */
const RUNS = 2;

for (const backend of GUEST_BACKENDS) {
  const runs = RUNS * RUNS_FACTOR;
  const lack =
    probeGuest({ backend })
      .list.filter(({ met }) => !met)
      .map(({ what, found, remedy }) => `${what}: ${found}; ${remedy}`)
      .join('. ') || undefined;
  const subject = guestSubject({ backend });
  conformance(suiteRunner(lack, 300_000 * RUNS_FACTOR), subject, {
    runs,
    ...REPLAY,
    except: GUEST_EXCEPTIONS[backend],
  });

  test(`what does not apply to ${backend} is what follows from its manifest`, async (context) => {
    if (lack !== undefined) context.skip(lack);
    expect([...(await inapplicable(subject)).keys()]).toEqual(GUEST_EXCEPTIONS[backend]);
  });
}
