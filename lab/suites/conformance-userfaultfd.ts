import { suite, test } from 'node:test';
import { conformance } from 'demand-paging/conformance';
import { USERFAULTFD_SUBJECTS } from '../../test/real/conformance/userfaultfd-subjects.js';

/** Emulated CPUs are slow; chance comes from the schedule of a real kernel all the same. */
const RUNS = Number(process.env['LAB_RUNS'] ?? 1);

/** Of the kinds of memory the first, private memory, unless told to play all (`LAB_MEMORY=all`): each takes minutes. */
const SUBJECTS =
  process.env['LAB_MEMORY'] === 'all' ? USERFAULTFD_SUBJECTS : USERFAULTFD_SUBJECTS.slice(0, 1);

for (const { subject, except } of SUBJECTS)
  conformance(
    {
      describe: suite,
      test: (name, body) => void test(name, (context) => body((reason) => context.skip(reason))),
    },
    subject,
    { runs: RUNS, except },
  );
