import { expect, test } from 'vitest';
import { type AccessSite } from 'demand-paging';
import { CANDIDATES } from '../../src/cli/judge/candidate.js';
import { cellsOf } from '../../src/cli/judge/cell.js';
import { makeMatrix } from '../../src/cli/judge/matrix.js';
import { textOf } from '../../src/cli/judge/page/hazard-list.js';
import { THREAD_HAZARDS } from '../../src/cli/judge/thread-hazards.js';

const NAMES = CANDIDATES.filter(({ group }) => group !== 'live').map(({ name }) => name);

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

/** Who has which: those named, and nobody else. */
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
  'exist-wakes-nobody': ['kvm-userfault+uffd-no-wake'],
  'ready-overtakes-accept': ['async-pf-early-ready'],
  'balloon-unannounced': ALONE.filter((name) => !/unreadable|early-ready/.test(name)),
  'its-restore-silent': KVM_UNWATCHED,
  'its-restore-fails': ['model-vacated-slot', 'model-memslot-hole+uffd', 'present-bitmap-errors'],
  // One queue for everybody is what a descriptor of faults is; whoever exits has a queue of its own.
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
  'each hazard is in the matrix for those who have it, with a counterexample, and for nobody else',
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
      hazards.map(({ name, has }) => [name, has.map(({ candidate }) => candidate).sort()]),
    );
    expect(Object.keys(found).sort()).toEqual(Object.keys(HAS).sort());
    for (const [name, has] of Object.entries(HAS)) expect(found[name], name).toEqual([...has].sort());
    for (const { name, has } of hazards)
      for (const { candidate, result } of has) {
        expect(textOf(result), `${candidate}: ${name}`).not.toBe('');
        expect('trace' in result && result.trace.length, `${candidate}: ${name}`).toBeGreaterThan(0);
      }
  },
);
