import assert from 'node:assert/strict';
import { suite, test } from 'node:test';
import { conformance, inapplicable } from 'demand-paging/conformance';
import { type GuestBackendName, guestSubject, probeGuest } from 'demand-paging/guests';
import { GUEST_EXCEPTIONS } from '../../../test/real/conformance/guest-exceptions.js';
import { record } from './record.js';

/** Emulated CPUs are slow: one run of a property takes seconds, and there are some twenty. */
const RUNS = Number(process.env['LAB_RUNS'] ?? 1);

/**
 * The conformance suite on a backend that is part of a VM, whose memory real vCPUs access, as a suite of the
 * lab.
 */
export function guestConformance(backend: GuestBackendName): void {
  const lack = probeGuest({ backend })
    .list.filter(({ met }) => !met)
    .map(({ what, found }) => `${what}: ${found}`)
    .join('; ');
  const subject = guestSubject({ backend });
  const except = GUEST_EXCEPTIONS[backend];
  record('sites', lack === '' ? subject.sites : lack);
  conformance(
    {
      describe: suite,
      test: (name, body) =>
        void test(name, (context) => {
          if (lack !== '') return context.skip(lack);
          return body((reason) => context.skip(reason));
        }),
    },
    subject,
    { runs: RUNS, except },
  );
  void test(`what does not apply to ${backend} is what follows from its manifest`, async (context) => {
    if (lack !== '') return context.skip(lack);
    assert.deepEqual([...(await inapplicable(subject)).keys()], except);
  });
}
