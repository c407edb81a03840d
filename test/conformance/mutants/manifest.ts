import { type Coverage, type Effect, type AccessSite, VERB, type Verb } from 'demand-paging';
import { blocking, erroring, type ModelMechanism, watchedSites } from 'demand-paging/backends/memory';
import { rows, mutant } from './mutant.js';

const declare = (coverage: Coverage, site: AccessSite, effect: Effect): Coverage =>
  coverage.map((row) =>
    row.site === site ? { ...row, effect, address: effect === 'errors' ? 'none' : row.address } : row,
  );

const { 'external-vhost': _vhost, ...withoutVhost } = watchedSites(() => blocking());

/** Says that an access fails which in truth delivers no fault. */
export const coverageTooProud = mutant({
  name: 'declares more coverage than there is',
  breaks: 'coverage-is-true',
  kind: 'wrong-effect',
  // Nor does poison stop an access that nothing stops.
  mayBreak: ['poison-is-sticky'],
  model: { sites: withoutVhost },
  attachment: ({ coverage }) => ({ coverage: declare(coverage, 'external-vhost', 'errors') }),
});

/** Says that an access delivers no fault which in truth waits. */
export const coverageTooModest = mutant({
  name: 'declares less coverage than there is',
  breaks: 'coverage-is-true',
  kind: 'wrong-effect',
  attachment: ({ coverage }) => ({ coverage: declare(coverage, 'vmm-syscall', 'unmediated') }),
});

/** Carries out what it does not declare. */
export const verbTooModest = mutant({
  name: 'carries out a verb that it does not declare',
  breaks: 'unsupported-changes-nothing',
  kind: 'not-declared-but-done',
  attachment: ({ supports }) => ({
    supports: { ...supports, verbs: supports.verbs.filter((verb): verb is Verb => verb !== 'move') },
  }),
});

/** Refuses what it declares. */
export const verbTooProud = mutant({
  name: 'refuses a verb that it declares',
  breaks: 'unsupported-changes-nothing',
  kind: 'declared-but-refused',
  port: (inner) => ({
    resolve: rows(inner, (row) => (row.verb === VERB.move ? { outcome: 4, done: 0, errno: 0 } : undefined)),
  }),
});

/** One mechanism before the kernel's own accesses, and the ordinary one before the rest. */
const kernelSites = (mechanism: ModelMechanism) => ({
  ...watchedSites(() => blocking()),
  'kernel-copy': [mechanism],
});

/** Once a page was asked for, it takes it for there. */
function impatient(): ModelMechanism {
  const inner = blocking();
  const asked = new WeakSet<object>();
  return {
    ...inner,
    name: 'impatient',
    obstacle: (access, kernel) => (asked.has(access) ? undefined : inner.obstacle(access, kernel)),
    stop: (access, kind, kernel) => {
      asked.add(access);
      inner.stop(access, kind, kernel);
    },
  };
}

/** The kernel's own access waits once, and goes on whether its page has come or not. */
export const kernelDoesNotWait = mutant({
  name: "the kernel's own access looks no second time",
  breaks: 'kernel-access-blocks',
  kind: 'zeros-read',
  // It reads what is not there, in whatever property it reads.
  mayBreak: ['no-zero-leak', 'no-torn-page', 'again-makes-progress', 'freeze-is-reversible'],
  model: { sites: kernelSites(impatient()) },
});

/** A page that once failed to be reached is never reached again. */
function unforgiving(): ModelMechanism {
  const failed = new WeakMap<object, Set<number>>();
  const inner = erroring();
  return {
    ...inner,
    name: 'unforgiving',
    obstacle: (access, kernel) =>
      failed.get(kernel)?.has(access.page) ? 14 : inner.obstacle(access, kernel),
    stop: (access, kind, kernel) => {
      failed.set(kernel, (failed.get(kernel) ?? new Set()).add(access.page));
      inner.stop(access, kind, kernel);
    },
  };
}

/** The kernel's own access fails, and fails again when its page is there. */
export const kernelNeverRecovers = mutant({
  name: "the kernel's own access never recovers",
  breaks: 'kernel-access-errors-then-retries',
  kind: 'wrong-end',
  mayBreak: ['coverage-is-true'],
  model: { sites: kernelSites(unforgiving()) },
});
