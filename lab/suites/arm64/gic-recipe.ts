import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { deserialize, serialize } from 'node:v8';
import { fileOffset, gpa, openPager, type Pager } from 'demand-paging';
import { beginRestore, type RestoreAction, type SavedVgic } from 'demand-paging/arm64';
import { userfaultfd } from 'demand-paging/backends/userfaultfd';
import { KvmGic } from 'demand-paging/kvm';
import { Kvm, mapMemory } from 'demand-paging/linux';
import { memory } from 'demand-paging/sources';
import { dirtyPages, restoreGic, saveGic } from '../../../examples/arm64-gic.js';
import {
  ACTIVE,
  EVENTS,
  INTERRUPTS,
  MPIDRS,
  PAGE,
  QUEUED,
  queueOneMore,
  RAM,
  RAM_BYTES,
  startRegisters,
  STEPS,
  TABLE_PAGES,
  writeGuest,
} from '../../its/recipe/guest.js';
import { Machine } from '../../its/recipe/machine.js';
import { record } from '../support/record.js';

/*
 * The recipe of docs/gic-its-restore.md, as it stands there: a guest with two ITSes that sets its GIC up, and
 * has interrupts of every kind active and pending, is saved by the real KVM and goes on in a VM of which
 * every page is missing.
 */
const PAGES = RAM_BYTES / PAGE;
const VCPUS = [...MPIDRS.keys()];

let kvm: Kvm;
let source: Machine;
let saved: SavedVgic;
const image = new SharedArrayBuffer(RAM_BYTES);

before(async () => {
  kvm = Kvm.open();
  const ram = mapMemory({ kind: 'anonymous', length: RAM_BYTES });
  const bytes = ram.bytes();
  writeGuest(bytes);
  source = new Machine(kvm);
  source.place(ram.address);
  liveUntilSaved(source);
  // A pass of the dirty log while the VM lived, as a migration makes many; then the save, and the last pass.
  dirtyPages(source.vm, 0, PAGES);
  new Uint8Array(image).set(bytes);
  const read = await saveGic(source.gic, source.vcpus);
  const dirty = dirtyPages(source.vm, 0, PAGES);
  for (const page of TABLE_PAGES) assert.ok(dirty.includes(page), `page ${page} was written by the save`);
  for (const page of dirty)
    new Uint8Array(image, page * PAGE, PAGE).set(bytes.subarray(page * PAGE, (page + 1) * PAGE));
  saved = withQueuedCommand(deserialize(serialize(read)) as SavedVgic);
  record('pages that the save wrote', dirty.length);
});
after(() => {
  source.close();
  kvm.close();
});

/** Runs the guest until each vCPU has taken an interrupt, has not ended it, and has others pending. */
function liveUntilSaved(machine: Machine): void {
  for (const vcpu of VCPUS) machine.setRegisters(vcpu, startRegisters(vcpu));
  for (const vcpu of VCPUS.toReversed()) assert.equal(machine.run(vcpu).what, 'step');
  machine.setSpi(INTERRUPTS.levelSpi, 1);
  machine.setSpi(INTERRUPTS.edgeSpi, 1);
  for (const vcpu of VCPUS) machine.setPpi(INTERRUPTS.ppi, vcpu, 1);
  for (const event of EVENTS) if (event.pending) assert.equal(machine.signal(event), 1);
  for (const vcpu of VCPUS) {
    assert.deepEqual(machine.run(vcpu), { what: 'takes', value: ACTIVE[vcpu] });
    assert.equal(machine.run(vcpu).what, 'step');
    machine.park(vcpu);
  }
}

/**
 * Nothing can be queued and not executed on a source that runs; a VM that was saved elsewhere may come so.
 */
function withQueuedCommand(vgic: SavedVgic): SavedVgic {
  const cwriter = queueOneMore(new Uint8Array(image));
  return { ...vgic, itses: vgic.itses.map((its, n) => (n === QUEUED.its ? { ...its, cwriter } : its)) };
}

interface Target {
  readonly machine: Machine;
  readonly pager: Pager;
  close(): Promise<void>;
}

async function openTarget(): Promise<Target> {
  const machine = new Machine(kvm);
  const pager = await openPager({
    backend: userfaultfd(),
    regions: [
      {
        gpa: gpa(RAM),
        length: BigInt(RAM_BYTES),
        sourceOffset: fileOffset(0),
        memory: 'anonymous',
        pageSize: PAGE,
      },
    ],
    source: memory(image),
    needs: ['vcpu', 'kernel'],
    policy: { faultAroundPages: 1, prefetchPages: 1 },
  });
  machine.place(Number(pager.layout.regions[0]!.hva));
  const close = async (): Promise<void> => {
    machine.close();
    await pager.close({ missing: 'leave' });
  };
  return { machine, pager, close };
}

/**
 * Runs a vCPU to its end, and gives what it took, in order; devices do as the guest takes their interrupts.
 */
function takesOf(machine: Machine, vcpu: number, inTheMiddle: () => void): number[] {
  const taken: number[] = [];
  for (;;) {
    const { what, value } = machine.run(vcpu);
    if (what === 'done') break;
    if (what === 'step' && value === STEPS / 2) inTheMiddle();
    if (what !== 'takes') continue;
    taken.push(value);
    if (value === INTERRUPTS.levelSpi) machine.setSpi(value, 0);
    if (value === INTERRUPTS.ppi) machine.setPpi(value, vcpu, 0);
  }
  machine.park(vcpu);
  return taken;
}

const sorted = (intids: readonly number[]): number[] => [...intids].sort((a, b) => a - b);
const lpisOf = (vcpu: number, pending: boolean): number[] =>
  [...EVENTS, ...(pending ? [] : [QUEUED])]
    .filter((event) => event.vcpu === vcpu && event.enabled && (event.pending || !pending))
    .map(({ intid }) => intid);
/**
 * What no LPI is and waits for a vCPU when it goes on: vCPU 0's level SPI is high still, once it has ended
 * it.
 */
const WAITING = [
  [INTERRUPTS.levelSpi, INTERRUPTS.ppi, INTERRUPTS.sgis[0]],
  [INTERRUPTS.edgeSpi, INTERRUPTS.ppi],
];

test('a guest goes on where it was saved: what was active is ended, what was pending is taken, once', async () => {
  const { machine, pager, close } = await openTarget();
  try {
    let faults = 0;
    let ioctls = 0;
    const watched = new KvmGic(machine.gic.gic, machine.gic.itses, {
      during: (body) => {
        const { missingFaults } = pager.statistics();
        const result = body();
        faults += pager.statistics().missingFaults - missingFaults;
        ioctls++;
        return result;
      },
    });
    const started = performance.now();
    await restoreGic(watched, saved, pager);
    record('the restore', { ioctls, 'faults in them': faults, ms: Math.round(performance.now() - started) });
    assert.equal(faults, 0, 'an ioctl met a missing page');
    assert.ok(!pager.complete, 'pages are missing');

    // What KVM has now is what it had, but for the command that was queued and is executed.
    const again = await saveGic(machine.gic, machine.vcpus);
    const executed = saved.itses.map((its) => ({ ...its, creadr: its.cwriter }));
    assert.deepEqual(again, { ...saved, itses: executed });

    machine.resumeFrom(source);
    for (const vcpu of VCPUS) {
      const taken = takesOf(machine, vcpu, () => {
        for (const event of [...EVENTS, QUEUED])
          if (event.vcpu === vcpu) assert.equal(machine.signal(event), 1, `MSI of event ${event.event}`);
        if (vcpu === 0) machine.setSpi(INTERRUPTS.lateSpi, 1);
      });
      const late = vcpu === 0 ? [INTERRUPTS.lateSpi] : [];
      const expected = [...WAITING[vcpu]!, ...lpisOf(vcpu, true), ...lpisOf(vcpu, false), ...late];
      assert.deepEqual(sorted(taken), sorted(expected));
    }
    // Each has ended what it took; what is masked is pending still.
    const { distributor, redistributors } = await saveGic(machine.gic, machine.vcpus);
    assert.deepEqual(distributor.spis?.isactiver, [0, 0]);
    for (const { interrupts, cpuInterface } of redistributors) {
      assert.deepEqual([interrupts?.isactiver, interrupts?.ispendr], [[0], [0]]);
      assert.deepEqual(cpuInterface?.ap1r, [0n]);
    }
  } finally {
    await close();
  }
});

test('with the distributor enabled last, KVM never delivers an LPI that was pending', async () => {
  const { machine, pager, close } = await openTarget();
  try {
    let last: RestoreAction | undefined;
    const issue = (action: RestoreAction): void => {
      if (action.group === 'DIST_REGS' && action.offset === 0) last = action;
      else machine.gic.restoreIssuer(action);
    };
    const redistributors = await beginRestore(issue).restoreDistributor(saved.distributor);
    let next = await redistributors.restoreRedistributors(saved.redistributors);
    for (const registers of saved.itses) {
      const tables = await next.restoreItsRegisters(registers);
      next = (await (await tables.restoreTables()).enableIts()).nextIts();
    }
    machine.gic.restoreIssuer(last!);
    assert.deepEqual((await saveGic(machine.gic, machine.vcpus)).redistributors, saved.redistributors);
    machine.resumeFrom(source);
    for (const vcpu of VCPUS) {
      const taken = takesOf(machine, vcpu, () => {});
      assert.deepEqual(
        taken.filter((intid) => intid >= 8192),
        [],
      );
    }
    assert.ok(pager.statistics().missingFaults > 0);
  } finally {
    await close();
  }
});
