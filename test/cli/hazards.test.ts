import { expect, test } from 'vitest';
import { type AccessSite } from 'demand-paging';
import { TARGETS } from '../../src/cli/evaluation/target.js';
import { cellsOf } from '../../src/cli/evaluation/cell.js';
import { makeMatrix } from '../../src/cli/evaluation/matrix.js';
import { textOf } from '../../src/cli/evaluation/page/hazard-list.js';
import { THREAD_HAZARDS } from '../../src/cli/evaluation/thread-hazards.js';

const NAMES = TARGETS.filter(({ group }) => group !== 'live').map(({ name }) => name);

const ALONE = [
  'model-vacated-slot',
  'present-bitmap',
  'present-bitmap-errors',
  'kvm-userfault',
  'async-pf',
  'present-bitmap-vcpu-only',
  'present-bitmap-bit-first',
  'exit-on-missing',
  'kvm-userfault-bit-first',
  'kvm-userfault-not-toggled',
  'kvm-userfault-unreadable',
  'async-pf-early-ready',
];
/** Those with a userfaultfd before the VMM's mapping, or that are one. */
const BESIDE = NAMES.filter((name) => !ALONE.includes(name));
const KVM_UNWATCHED = ALONE.filter(
  (name) =>
    name !== 'model-vacated-slot' && (!name.startsWith('present-bitmap') || name.endsWith('vcpu-only')),
);

/** Which targets have which: those named, and no others. */
const HAS: Readonly<Record<string, readonly string[]>> = {
  'kvm-reads-zeros': KVM_UNWATCHED,
  'kvm-maps-for-itself': KVM_UNWATCHED,
  'vhost-bypasses': ALONE,
  'vmm-bypasses': ALONE,
  'second-view': NAMES.filter((name) => name !== 'file-uffd'),
  'published-early': ['present-bitmap-bit-first', 'exit-on-missing', 'kvm-userfault-bit-first'],
  'half-a-page': ['present-bitmap-bit-first', 'exit-on-missing', 'kvm-userfault-bit-first'],
  'late-set-ignored': ['kvm-userfault-not-toggled'],
  'unreadable-bitmap': ['kvm-userfault-unreadable'],
  'exist-wakes-no-waiter': ['kvm-userfault+uffd-no-wake'],
  'ready-overtakes-accept': ['async-pf-early-ready'],
  'balloon-unannounced': ALONE.filter((name) => !/unreadable|early-ready/.test(name)),
  'its-restore-silent': KVM_UNWATCHED,
  'its-restore-fails': ['model-vacated-slot', 'model-memslot-hole+uffd', 'present-bitmap-errors'],
  // One queue for all is what a descriptor of faults is; a vCPU that exits has a queue of its own.
  'one-queue': ['model-userfaultfd', 'model-userfaultfd-rwp', 'file-uffd'],
  // Contents that come through the VMM's mapping come in its units.
  'huge-granule': NAMES.filter((name) => BESIDE.includes(name) || name === 'exit-on-missing'),
  // Those that split without a way to put together, short of ending it all.
  'stays-small': ALONE.filter((name) => !/present-bitmap|exit-on-missing/.test(name)),
  'no-freeze': [
    'model-userfaultfd',
    'file-uffd',
    'async-pf',
    'async-pf-early-ready',
    'exit-on-missing',
    'kvm-userfault-not-toggled',
  ],
  'freeze-passes-kvm': ALONE.filter((name) => /kvm-userfault|vcpu-only/.test(name)),
  'handler-death-zeros': [
    ...KVM_UNWATCHED,
    ...BESIDE.filter((name) => !/present-bitmap|memslot-hole/.test(name)),
  ],
  'handler-death-hangs': [
    'present-bitmap',
    'present-bitmap+uffd',
    'present-bitmap-bit-first',
    'async-pf-ring+uffd',
  ],
  'poison-passes': ALONE,
};

/** A hazard of a site is shown there; one of a property is looked for where a guest loads. */
const SITES: readonly AccessSite[] = THREAD_HAZARDS.flatMap(({ shown }) =>
  shown.by === 'site' ? [shown.site] : [],
);

const shownProperties = THREAD_HAZARDS.flatMap(({ shown }) =>
  shown.by === 'property' ? [shown.property, ...(shown.unless ?? [])] : [],
);

test(
  'each hazard is in the matrix for the targets that have it, with a counterexample, and for no others',
  { timeout: 300_000 },
  async () => {
    const { hazards } = await makeMatrix({
      runs: 60,
      liveRuns: 1,
      seed: 20231107,
      modules: [],
      only: NAMES,
      cells: cellsOf().filter(({ property, site }) =>
        site === 'vcpu-load'
          ? shownProperties.includes(property)
          : property === 'no-zero-leak' && site !== undefined && SITES.includes(site),
      ),
      // Enough on a machine that does something else as well: how small a counterexample gets is not looked at.
      within_ms: 4000,
      hear: () => {},
    });
    const found = Object.fromEntries(
      hazards.map(({ name, has }) => [name, has.map(({ target }) => target).sort()]),
    );
    expect(Object.keys(found).sort()).toEqual(Object.keys(HAS).sort());
    for (const [name, has] of Object.entries(HAS)) expect(found[name], name).toEqual([...has].sort());
    for (const { name, has } of hazards)
      for (const { target, result } of has) {
        expect(textOf(result), `${target}: ${name}`).not.toBe('');
        expect('trace' in result && result.trace.length, `${target}: ${name}`).toBeGreaterThan(0);
      }
  },
);
