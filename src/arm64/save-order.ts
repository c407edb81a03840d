import { activePriorityRegisters, ICC, type SavedCpuInterface } from './cpu-interface-registers.js';
import type { SaveIssuer } from './gic-access.js';
import {
  type InterruptField,
  type InterruptStretch,
  interruptAccesses,
  PRIVATE_INTERRUPTS,
  type SavedInterrupts,
} from './interrupt-registers.js';
import { CONTROL } from './its-operations.js';
import { GICD, GICR, GITS } from './registers.js';
import { mpidrOf, type SavedIts, type SavedRedistributor } from './restore-order.js';
import type { SavedVgic } from './saved-vgic.js';

/** What is to be saved. */
export interface VgicShape {
  /**
   * In order of vCPU creation. `mpidr` is MPIDR_EL1 where the VMM set it: see {@link
   * SavedRedistributor.mpidr}.
   */
  readonly vcpus: readonly Pick<SavedRedistributor, 'vcpuId' | 'mpidr'>[];
  /** How many ITSes the VM has. */
  readonly itses: number;
}

/**
 * Saves a GIC and its ITSes in the documented order: first KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES and, of each
 * ITS, KVM_DEV_ARM_ITS_SAVE_TABLES, which write guest memory; then every register that {@link beginRestore}
 * sets.
 *
 * Preconditions: no vCPU is in KVM_RUN, or enters it before the VM has gone or the save is given up; devices
 * are quiet, so that no interrupt comes meanwhile. **The last pass of the dirty log comes after this**: it is
 * the tables that are in it, and a vCPU's dirty ring does not have them (KVM_CAP_DIRTY_LOG_RING_WITH_BITMAP
 * does). Blocks on what `issue` blocks on: the tables' pages. Errors: those of `issue`.
 */
export async function saveVgic(shape: VgicShape, issue: SaveIssuer): Promise<SavedVgic> {
  const [first] = shape.vcpus;
  if (first === undefined) throw new RangeError('a GIC without vCPUs has nothing to save');
  await issue({ device: 'gic', group: 'CTRL', attribute: CONTROL.savePending });
  for (let its = 0; its < shape.itses; its++)
    await issue({ device: 'its', its, group: 'CTRL', attribute: CONTROL.saveTables });
  const nrIrqs = Number(await issue({ device: 'gic', group: 'NR_IRQS', size: 4 }));
  const distributor = (offset: number): bigint | Promise<bigint> =>
    issue({ device: 'gic', group: 'DIST_REGS', offset, size: 4 });
  const saved = {
    iidr: await distributor(GICD.IIDR),
    typer2: await distributor(GICD.TYPER2),
    ctlr: await distributor(GICD.CTLR),
  };
  const redistributors: SavedRedistributor[] = [];
  for (const vcpu of shape.vcpus) redistributors.push(await saveRedistributor(issue, vcpu));
  const vcpu = { vcpuId: first.vcpuId, mpidr: mpidrOf(first) };
  const count = nrIrqs - PRIVATE_INTERRUPTS;
  const { state, irouter } = await saveInterrupts(issue, { first: PRIVATE_INTERRUPTS, count, vcpu });
  const itses: SavedIts[] = [];
  for (let its = 0; its < shape.itses; its++) itses.push(await saveIts(issue, its));
  return { distributor: { nrIrqs, ...saved, spis: { ...state, irouter } }, redistributors, itses };
}

async function saveRedistributor(
  issue: SaveIssuer,
  vcpu: VgicShape['vcpus'][number],
): Promise<SavedRedistributor> {
  const { vcpuId } = vcpu;
  const mpidr = mpidrOf(vcpu);
  const get = (offset: number, size: 4 | 8): bigint | Promise<bigint> =>
    issue({ device: 'gic', group: 'REDIST_REGS', vcpuId, mpidr, offset, size });
  const stretch = { first: 0, count: PRIVATE_INTERRUPTS, vcpu: { vcpuId, mpidr } };
  return {
    vcpuId,
    mpidr,
    propbaser: await get(GICR.PROPBASER, 8),
    pendbaser: await get(GICR.PENDBASER, 8),
    ctlr: await get(GICR.CTLR, 4),
    interrupts: (await saveInterrupts(issue, stretch)).state,
    cpuInterface: await saveCpuInterface(issue, stretch.vcpu),
  };
}

async function saveInterrupts(
  issue: SaveIssuer,
  stretch: InterruptStretch,
): Promise<{ readonly state: SavedInterrupts; readonly irouter: readonly bigint[] }> {
  const saved = new Map<InterruptField, bigint[]>();
  for (const { register, field } of interruptAccesses(stretch)) {
    if (field === undefined) continue;
    const values = saved.get(field) ?? [];
    saved.set(field, values);
    values.push(await issue(register));
  }
  const numbers = (field: InterruptField): number[] => (saved.get(field) ?? []).map(Number);
  return {
    state: {
      igroupr: numbers('igroupr'),
      icfgr: numbers('icfgr'),
      ipriorityr: numbers('ipriorityr'),
      isenabler: numbers('isenabler'),
      lineLevel: numbers('lineLevel'),
      ispendr: numbers('ispendr'),
      isactiver: numbers('isactiver'),
    },
    irouter: saved.get('irouter') ?? [],
  };
}

async function saveCpuInterface(
  issue: SaveIssuer,
  vcpu: InterruptStretch['vcpu'],
): Promise<SavedCpuInterface> {
  const get = (register: number): bigint | Promise<bigint> =>
    issue({ device: 'gic', group: 'CPU_SYSREGS', ...vcpu, register, size: 8 });
  const ctlr = await get(ICC.ctlr);
  const activePriorities = async (first: number): Promise<bigint[]> => {
    const values: bigint[] = [];
    for (let n = 0; n < activePriorityRegisters(ctlr); n++) values.push(await get(first + n));
    return values;
  };
  return {
    sre: await get(ICC.sre),
    ctlr,
    pmr: await get(ICC.pmr),
    bpr0: await get(ICC.bpr0),
    bpr1: await get(ICC.bpr1),
    igrpen0: await get(ICC.igrpen0),
    igrpen1: await get(ICC.igrpen1),
    ap0r: await activePriorities(ICC.ap0r),
    ap1r: await activePriorities(ICC.ap1r),
  };
}

async function saveIts(issue: SaveIssuer, its: number): Promise<SavedIts> {
  const get = (offset: number, size: 4 | 8 = 8): bigint | Promise<bigint> =>
    issue({ device: 'its', its, group: 'ITS_REGS', offset, size });
  return {
    base: await issue({ device: 'its', its, group: 'ADDR', size: 8 }),
    iidr: await get(GITS.IIDR, 4),
    cbaser: await get(GITS.CBASER),
    creadr: await get(GITS.CREADR),
    cwriter: await get(GITS.CWRITER),
    baser0: await get(GITS.BASER0),
    baser1: await get(GITS.BASER1),
    ctlr: await get(GITS.CTLR, 4),
  };
}
