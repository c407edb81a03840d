import assert from 'node:assert/strict';
import { release } from 'node:os';
import { after, before, suite, test } from 'node:test';
import { gpa, type GpaRange } from 'demand-paging';
import {
  type BeforeItsEnable,
  createSavedVgic,
  type KernelName,
  KERNELS,
  type Plan,
  planMemoryOf,
  planRestore,
} from 'demand-paging/arm64';
import { Kvm } from 'demand-paging/linux';
import { DATA_PAGES, EVENTS, PAGE, PLACE, RAM_BYTES, VCPU_IDS } from '../../its/mission/guest.js';
import { type SavedMachine, saveSource } from '../../its/mission/source.js';
import { DOORBELL, hasVcpuExits, type Mediation, Target } from '../../its/mission/target.js';
import { VcpuThread } from '../../its/mission/vcpu-thread.js';
import { record } from '../support/record.js';

/*
 * A VM's GIC is saved by the real KVM and restored by it into a VM of which every page is missing, in the
 * ways there are. What each costs: how long the VM waits before the ioctl, and how long the ioctl holds all
 * of its locks.
 */
const EFAULT = 14;
const LATENCIES = (process.env['LAB_LATENCIES'] ?? '0,1,10').split(',').map(Number);
const MODES = [
  'serial',
  'planned',
  'planned, guessing',
  'errors',
  'errors, planned',
  'everything first',
] as const;
type Mode = (typeof MODES)[number];

const kernel = /^\d+\.\d+/.exec(release())![0] as KernelName;
const rows: object[] = [];
let kvm: Kvm;
let saved: SavedMachine;
let mediation: Mediation;
let threads: readonly VcpuThread[];
/** What the kernel will touch, in order, as a plan says. */
let planned: readonly bigint[];

const pageRange = (page: bigint): GpaRange => ({ start: gpa(page), length: BigInt(PAGE) });
const vcpuPages = [
  PLACE.code,
  ...[...VCPU_IDS.keys()].flatMap((vcpu) =>
    Array.from({ length: DATA_PAGES }, (_, n) => PLACE.data(vcpu) + BigInt(n * PAGE)),
  ),
];

const plan = (target: Target, guessing = false): Promise<Plan> =>
  planRestore(
    createSavedVgic(saved.vgic, { mode: 'kvm', quirks: KERNELS[kernel] }),
    planMemoryOf(target.pager),
    0,
    guessing ? { speculation: {} } : {},
  );

const pagesOf = ({ touched }: Plan): bigint[] => touched.map(({ page }) => BigInt(page));

before(async () => {
  assert.ok(kernel in KERNELS, `the library knows no quirks of Linux ${kernel}: name them in KERNELS`);
  kvm = Kvm.open();
  threads = VCPU_IDS.map(() => new VcpuThread());
  saved = await saveSource(kvm);
  mediation = hasVcpuExits(kvm) ? 'vcpu-exits' : 'userfaultfd';
  const target = await Target.open(kvm, mediation, saved.image, 0);
  using first = await plan(target);
  planned = pagesOf(first);
  await target.close();
  record('pages of memory', RAM_BYTES / PAGE);
  record('pages that the restore touches', planned.length);
  record(
    'faults of vCPUs',
    mediation === 'vcpu-exits'
      ? 'exits of KVM_RUN (the composite backend)'
      : 'waits in KVM_RUN (userfaultfd): this kernel has no guest_memfd that can be mapped',
  );
});
after(async () => {
  if (rows.length > 0) record('the restore', rows);
  await Promise.all(threads.map((thread) => thread.close()));
  kvm.close();
});

/** Has the vCPUs bring their pages; where errors are the rule, they are brought by name. */
async function runVcpus(target: Target, errors: boolean): Promise<void> {
  if (errors) await target.pager.ensure(vcpuPages.map(pageRange));
  const { pageExits } = await target.runVcpus(threads);
  assert.equal(pageExits > 0, mediation === 'vcpu-exits' && !errors);
  assert.equal(target.pager.statistics().missingFaults > 0, !errors);
  // A vCPU that waited in userfaultfd goes on as soon as its page is installed, before that is written down.
  await target.pager.ensure(vcpuPages.map(pageRange));
}

/** What is done for the ioctl before it is issued. */
async function prepare(mode: Mode, target: Target): Promise<Plan | undefined> {
  if (mode === 'everything first') {
    await target.pager.prefetch();
    assert.ok(target.pager.complete);
  }
  return mode.includes('planned') ? await plan(target, mode.includes('guessing')) : undefined;
}

/**
 * Issues the ioctl until it succeeds: where errors are the rule, the page it needs next is brought before
 * each retry.
 */
async function issueTables(target: Target, mode: Mode, issue: () => number) {
  const { pager } = target;
  const spent = { ioctl: 0, bringing: 0, faults: 0, ioctls: 0 };
  for (;;) {
    const { missingFaults } = pager.statistics();
    const started = performance.now();
    const status = issue();
    const returned = performance.now();
    spent.ioctl += returned - started;
    spent.faults += pager.statistics().missingFaults - missingFaults;
    spent.ioctls++;
    if (status === 0) return spent;
    assert.equal(status, -EFAULT);
    assert.equal(mode, 'errors');
    // The kernel does not report which page it was: the plan makes the VMM's guess right each time.
    const missing = planned.find((page) => !pager.memory!.isPresent(pageRange(page)));
    assert.ok(missing !== undefined, 'it fails with every page there');
    await pager.ensure([pageRange(missing)]);
    spent.bringing += performance.now() - returned;
  }
}

/** The pending LPIs that did not come over. Every MSI has to arrive. */
async function lostInterrupts(target: Target, restored: BeforeItsEnable): Promise<typeof EVENTS> {
  await restored.enableIts();
  const { during, gic, pager } = target;
  assert.equal(
    during(() => gic.savePending()),
    0,
  );
  const isPending = ({ intid, collection }: (typeof EVENTS)[number]): boolean => {
    const [byte] = pager.memory!.readSync(gpa(PLACE.pending(collection) + BigInt(intid >>> 3)), 1);
    return ((byte! >>> (intid & 7)) & 1) === 1;
  };
  for (const event of EVENTS)
    assert.ok(event.pending || !isPending(event), `LPI ${event.intid} was not pending`);
  const lost = EVENTS.filter((event) => event.pending && !isPending(event));
  for (const { device, event } of EVENTS)
    assert.equal(
      during(() => gic.signalMsi(DOORBELL, 1, device, event)),
      1,
    );
  return lost;
}

const round = (ms: number): number => Math.round(ms * 10) / 10;

async function restore(mode: Mode, latency_ms: number): Promise<void> {
  const errors = mode.startsWith('errors');
  const target = await Target.open(kvm, errors ? 'error' : mediation, saved.image, latency_ms);
  try {
    await runVcpus(target, errors);
    const { pager } = target;
    const present = pager.statistics().presentPages;
    const spent = { before: 0, ioctl: 0, bringing: 0, faults: 0, ioctls: 0 };
    const tables = await target.restoreRegisters(saved.vgic, async (issue) => {
      Object.assign(spent, await issueTables(target, mode, issue));
    });
    assert.equal(pager.statistics().presentPages, present, 'a register touched memory');
    const faults = await target.listen();
    let made: Plan | undefined;
    const restored = await tables.restoreTables(async () => {
      const started = performance.now();
      made = await prepare(mode, target);
      spent.before = performance.now() - started;
    });
    const heard = await faults();
    const moved = pager.statistics().presentPages - present;
    if (made !== undefined) {
      assert.deepEqual([made.status, pagesOf(made)], [0, planned]);
      made.release();
    }
    if (mode === 'serial')
      assert.deepEqual(heard, planned, 'the kernel touches what was planned, in that order');
    assert.equal(spent.faults, mode === 'serial' ? planned.length : 0);

    const lost = await lostInterrupts(target, restored);
    rows.push({
      mode,
      'a page takes (ms)': latency_ms,
      'before the ioctl (ms)': round(spent.before + spent.bringing),
      'in the ioctl (ms)': round(spent.ioctl),
      'faults in it': spent.faults,
      ioctls: spent.ioctls,
      rounds: made?.rounds.length ?? '',
      'pages moved': moved,
      'pending LPIs lost': `${lost.length} of ${EVENTS.filter(({ pending }) => pending).length}`,
    });
    if (mode === 'errors') {
      assert.equal(spent.ioctls, planned.length + 1);
      // Those that are enabled are in the list of a vCPU, and outlive the restore that failed.
      assert.ok(
        lost.length > 0 && lost.every(({ enabled }) => !enabled),
        'masked ones are lost, and no others',
      );
    } else assert.deepEqual([spent.ioctls, lost], [1, []]);
  } finally {
    await target.close();
  }
}

for (const latency_ms of LATENCIES)
  suite(`a page takes ${latency_ms} ms`, () => {
    for (const mode of MODES) test(mode, () => restore(mode, latency_ms));
  });
