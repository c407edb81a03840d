import { suite, test } from 'node:test';
import { conformance, PROPERTIES, titleOf } from 'demand-paging/conformance';
import { PROTECTED_SUBJECT, USERFAULTFD_SUBJECTS } from '../../test/real/conformance/userfaultfd-subjects.js';

/** Emulated CPUs are slow; chance comes from the schedule of a real kernel all the same. */
const RUNS = Number(process.env['LAB_RUNS'] ?? 1);

/**
 * Of the kinds of memory the first, private memory, and of read and write protection, where the kernel has
 * it, what becomes of frozen pages. `LAB_MEMORY` has others played, whose name holds it, or `all`: each takes
 * minutes.
 */
const MEMORY = process.env['LAB_MEMORY'];
const { subject: guarded } = PROTECTED_SUBJECT;
const others = PROPERTIES.map(titleOf).filter((title) => title !== 'freeze-is-reversible');
const DEFAULT = [USERFAULTFD_SUBJECTS[0]!, { subject: guarded, except: others }];
const ALL = [...USERFAULTFD_SUBJECTS, PROTECTED_SUBJECT];
const wanted =
  MEMORY === undefined
    ? DEFAULT
    : ALL.filter(({ subject: { name } }) => MEMORY === 'all' || name.includes(MEMORY));

for (const { subject, except } of wanted.filter((each) => each.subject.backend().probe().met))
  conformance(
    {
      describe: suite,
      test: (name, body) => void test(name, (context) => body((reason) => context.skip(reason))),
    },
    subject,
    { runs: RUNS, except },
  );
