import { suite, test } from 'node:test';
import { conformance, PROPERTIES, titleOf } from 'demand-paging/conformance';
import { PROTECTED_SUBJECT, USERFAULTFD_SUBJECTS } from '../../test/real/conformance/userfaultfd-subjects.js';

/** Emulated CPUs are slow; chance comes from the schedule of a real kernel all the same. */
const RUNS = Number(process.env['LAB_RUNS'] ?? 1);

/** Of the kinds of memory the first, private memory, unless told to play all (`LAB_MEMORY=all`): each takes minutes. */
const ALL = process.env['LAB_MEMORY'] === 'all';
const SUBJECTS = ALL ? USERFAULTFD_SUBJECTS : USERFAULTFD_SUBJECTS.slice(0, 1);
const { subject: guarded, except: inapplicable } = PROTECTED_SUBJECT;
/** With read and write protection other things happen where pages are frozen. */
const others = PROPERTIES.map(titleOf).filter((title) => title !== 'freeze-is-reversible');
const GUARDED = guarded.backend().probe().met
  ? [{ subject: guarded, except: ALL ? inapplicable : others }]
  : [];

for (const { subject, except } of [...SUBJECTS, ...GUARDED])
  conformance(
    {
      describe: suite,
      test: (name, body) => void test(name, (context) => body((reason) => context.skip(reason))),
    },
    subject,
    { runs: RUNS, except },
  );
