import { describe, expect, test } from 'vitest';
import { type AccessSite } from 'demand-paging';
import { onePage } from './one-page.js';
import {
  checkProperty,
  type Fails,
  failsText,
  type Failure,
  PROPERTIES,
  type PropertyName,
  type SteppedSubject,
} from 'demand-paging/conformance';
import {
  asyncPf,
  balloonInPostCopy,
  exitOnMissing,
  fileUffd,
  kvmUserfault,
  lateMissing,
  presentBitmap,
} from 'demand-paging/prototypes';

const beside = { userfaultfd: true } as const;
const SEED = 20231107;

/** Name in the table, what is checked, and whether a userfaultfd stands beside it. */
const USES = {
  'present-bitmap': presentBitmap.subject(),
  'present-bitmap+uffd': presentBitmap.subject(beside),
  'present-bitmap, kernel accesses failing': presentBitmap.subject({ kernelAccess: 'error' }),
  'present-bitmap, vCPU exits only': presentBitmap.subject({ kernelAccess: 'none' }),
  'present-bitmap, bit first': presentBitmap.subject({ publish: 'before' }),
  'exit-on-missing': exitOnMissing.subject(),
  'exit-on-missing+uffd': exitOnMissing.subject(beside),
  'kvm-userfault': kvmUserfault.subject(),
  'kvm-userfault+uffd': kvmUserfault.subject(beside),
  'kvm-userfault+uffd, no wake on EEXIST': kvmUserfault.subject({ ...beside, wakesOnExist: false }),
  'kvm-userfault, bit first': kvmUserfault.subject({ publish: 'before' }),
  'kvm-userfault, flag not toggled': kvmUserfault.subject({ lateSet: 'nothing' }),
  'kvm-userfault, bitmap unreadable': kvmUserfault.subject({ bitmap: 'unreadable' }),
  'async-pf': asyncPf.subject(),
  'async-pf+uffd': asyncPf.subject(beside),
  'async-pf, early ready dropped': asyncPf.subject({ earlyReady: 'dropped' }),
  'async-pf ring': asyncPf.subject({ mode: 'ring' }),
  'file-uffd': fileUffd.subject(),
} as const satisfies Record<string, SteppedSubject>;

type Use = keyof typeof USES;

const ALL = Object.keys(USES) as readonly Use[];
const ALONE = ALL.filter((use) => !use.includes('+uffd') && use !== 'file-uffd');
const WITHOUT_KERNEL = ALONE.filter(
  (use) => !use.startsWith('present-bitmap') || use === 'present-bitmap, vCPU exits only',
);

interface SiteHazard {
  readonly hazard: string;
  readonly site: AccessSite;
  readonly has: readonly Use[];
}

/** Accesses that slip past: declared, and then seen in the kernel model. */
const UNMEDIATED: readonly SiteHazard[] = [
  { hazard: "KVM's own reads of GIC and ITS tables", site: 'kernel-copy', has: WITHOUT_KERNEL },
  { hazard: 'a page that KVM maps for itself', site: 'kernel-cached-pfn', has: WITHOUT_KERNEL },
  { hazard: "vhost, in the VMM's address space", site: 'external-vhost', has: ALONE },
  { hazard: 'the VMM reading through its own mapping', site: 'vmm-load', has: ALONE },
  {
    hazard: 'a second mapping of the same memory',
    site: 'external-mapping',
    has: ALL.filter((use) => use !== 'file-uffd'),
  },
];

interface Failing {
  readonly hazard: string;
  readonly property: PropertyName;
  /** Default: the suite's. */
  readonly scenario?: typeof lateMissing;
  /** Runs until it is found; what is rare takes many. */
  readonly runs: number;
  readonly has: readonly Use[];
  /** Where it is looked for and must not be. Default: all others. */
  readonly not?: readonly Use[];
  /** What its counterexample is. */
  readonly failure: Partial<Failure>;
}

const FAILING: readonly Failing[] = [
  {
    hazard: 'presence published before the contents',
    property: 'no-zero-leak',
    runs: 4000,
    has: ['present-bitmap, bit first', 'kvm-userfault, bit first', 'exit-on-missing'],
    not: ['present-bitmap', 'kvm-userfault', 'exit-on-missing+uffd', 'file-uffd'],
    failure: { kind: 'zeros-read' },
  },
  {
    // The same mistake on present-bitmap is the row before: making these counterexamples small takes long.
    hazard: 'half a page seen by a guest',
    property: 'no-torn-page',
    runs: 4000,
    has: ['kvm-userfault, bit first', 'exit-on-missing'],
    not: ['present-bitmap', 'kvm-userfault', 'exit-on-missing+uffd', 'file-uffd'],
    failure: { kind: 'torn-page' },
  },
  {
    hazard: 'a bit set late without effect',
    property: 'freeze-is-reversible',
    scenario: lateMissing,
    runs: 60,
    has: ['kvm-userfault, flag not toggled'],
    not: ['present-bitmap', 'kvm-userfault', 'kvm-userfault+uffd'],
    failure: { kind: 'not-stopped', page: 'marked-missing' },
  },
  {
    hazard: 'a bitmap that KVM cannot read',
    property: 'coverage-is-true',
    runs: 60,
    has: ['kvm-userfault, bitmap unreadable'],
    // A token that is never ready is a wait without an end here, too.
    not: ALL.filter((use) => !/unreadable|dropped/.test(use)),
    failure: { kind: 'wrong-effect', declared: 'exits', seen: 'errors' },
  },
  {
    hazard: 'EEXIST that wakes no waiter',
    property: 'duplicate-wakes',
    runs: 60,
    has: ['kvm-userfault+uffd, no wake on EEXIST'],
    // With an unreadable bitmap no access waits; a ready that was dropped wakes none either.
    not: ALL.filter((use) => !/no wake|unreadable|dropped/.test(use)),
    failure: { kind: 'stuck' },
  },
  {
    hazard: 'a ready that overtakes the accepting of its token',
    property: 'no-lost-wake',
    runs: 400,
    has: ['async-pf, early ready dropped'],
    not: ['async-pf', 'async-pf ring', 'async-pf+uffd', 'kvm-userfault', 'file-uffd'],
    failure: { kind: 'stuck' },
  },
  {
    hazard: 'a balloon during post-copy that is not announced',
    property: 'removed-reads-zero',
    scenario: balloonInPostCopy,
    runs: 60,
    has: ALONE.filter((use) => !/unreadable|dropped/.test(use)),
    not: ALL.filter((use) => (use.includes('+uffd') && !use.includes('no wake')) || use === 'file-uffd'),
    failure: { kind: 'stale-contents' },
  },
];

const suite = (name: PropertyName): typeof lateMissing =>
  PROPERTIES.find((property) => property.name === name && property.part === undefined)!;

describe.each(UNMEDIATED)('unmediated: $hazard', ({ site, has }) => {
  test.each(ALL)('%s', async (use) => {
    const attachment = await USES[use].backend().attach(onePage(USES[use].memory));
    const effect = attachment.coverage.find((row) => row.site === site)?.effect;
    await attachment.close();
    expect(effect === 'unmediated').toBe(has.includes(use));
  });
});

describe.each(FAILING)('$hazard', ({ property, scenario, runs, has, failure, ...rest }) => {
  const checked = scenario ?? suite(property);
  const not = rest.not ?? ALL.filter((use) => !has.includes(use));

  test.each(has)('%s has it, with a counterexample', { timeout: 60_000 }, async (use) => {
    const result = await checkProperty(checked, USES[use], { runs, seed: SEED });
    expect(result).toMatchObject({ outcome: 'fails', failure });
    expect((result as Fails).trace.length).toBeGreaterThan(1);
  });

  test.each(not)('%s has it not', { timeout: 60_000 }, async (use) => {
    const result = await checkProperty(checked, USES[use], { runs: Math.min(runs, 150), seed: SEED });
    expect(result.outcome === 'fails' ? failsText(result) : '').toBe('');
  });
});
