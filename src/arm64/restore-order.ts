import { DemandPagingError } from '../api/index.js';
import {
  activePriorityRegisters,
  CPU_INTERFACE_ORDER,
  ICC,
  type SavedCpuInterface,
} from './cpu-interface-registers.js';
import type { RestoreIssuer } from './gic-access.js';
import {
  type InterruptStretch,
  interruptAccesses,
  PRIVATE_INTERRUPTS,
  registersOf,
  type SavedInterrupts,
  type SavedSpis,
} from './interrupt-registers.js';
import { CONTROL } from './its-operations.js';
import { affinityOf } from './redistributor-registers.js';
import { GICD, GICR, GITS, gicrCtlr } from './registers.js';

/*
 * The order in which a VMM has to put GIC and ITS state back into a real KVM device
 * (Documentation/virt/kvm/devices/arm-vgic-its.rst, "ITS Restore Sequence", and arm-vgic-v3.rst).
 * Each step returns the next step's type, so a program that compiles has the order right.
 */

export interface SavedDistributor {
  /** How many interrupts the GIC has besides LPIs. Undefined: the restore does not compare it. */
  readonly nrIrqs?: number;
  /** GICD_IIDR: it selects behaviour, so it comes before every other distributor register. */
  readonly iidr: bigint;
  /** GICD_TYPER2: what the GIC is capable of. A target that is not says EBUSY or EINVAL. */
  readonly typer2?: bigint;
  readonly ctlr: bigint;
  /** Undefined: the caller restores them. */
  readonly spis?: SavedSpis;
}

export interface SavedRedistributor {
  readonly vcpuId: number;
  /**
   * MPIDR_EL1, by which the interface names a vCPU. Undefined: what KVM gives a vCPU of that id, {@link
   * affinityOf}.
   */
  readonly mpidr?: bigint;
  readonly propbaser: bigint;
  readonly pendbaser: bigint;
  readonly ctlr: bigint;
  /** SGIs and PPIs. Undefined: the caller restores them. */
  readonly interrupts?: SavedInterrupts;
  /** Undefined: the caller restores it. */
  readonly cpuInterface?: SavedCpuInterface;
}

export interface SavedIts {
  readonly base: bigint;
  readonly iidr: bigint;
  readonly cbaser: bigint;
  readonly creadr: bigint;
  readonly cwriter: bigint;
  readonly baser0: bigint;
  readonly baser1: bigint;
  readonly ctlr: bigint;
}

/** Memory, vCPUs, the GIC and every ITS are there, initialised; no register of theirs is set. */
export interface BeforeDistributor {
  restoreDistributor(saved: SavedDistributor): Promise<BeforeRedistributors>;
}
/** All redistributors at once: the tables below need every one of them. */
export interface BeforeRedistributors {
  restoreRedistributors(saved: readonly SavedRedistributor[]): Promise<BeforeIts>;
}
export interface BeforeIts {
  /** Sets the frame's address, then CBASER, then all other registers except CTLR. */
  restoreItsRegisters(saved: SavedIts): Promise<BeforeTables>;
}
export interface BeforeTables {
  /**
   * KVM_DEV_ARM_ITS_RESTORE_TABLES. `prepare` runs just before the ioctl: the place to plan and hold
   * its pages, so that it meets no fault while it holds the VM's locks.
   */
  restoreTables(prepare?: () => void | Promise<void>): Promise<BeforeItsEnable>;
}
export interface BeforeItsEnable {
  /**
   * Writes CTLR last: KVM executes the commands that are still queued in that ioctl, with every page that
   * they touch. `prepare` runs just before it, as that of {@link BeforeTables.restoreTables}.
   */
  enableIts(prepare?: () => void | Promise<void>): Promise<ItsRestored>;
}
/** Nothing more is to be set, unless the VM has another ITS. */
export interface ItsRestored {
  /** Another ITS of the same VM, by the same order. */
  nextIts(): BeforeIts;
}

/**
 * Starts the documented order. Each step may be taken once; a second call, or one on a step that was passed,
 * throws TypeError. Nothing is issued twice, and after a rejection nothing more is issued.
 *
 * GICD_CTLR comes right after GICD_IIDR, before whatever sets an interrupt pending. KVM enters a pending
 * interrupt in its vCPU's list when it becomes pending, and not while the distributor is disabled; enabling
 * the distributor later looks for none, so that interrupts restored before stay pending and are never
 * delivered (vgic_target_oracle in vgic.c). That a restore of tables which fails leaves LPIs in those lists
 * is the price: its VM is of no use any more anyway.
 *
 * Preconditions: guest memory (its pages may be missing if something answers the faults) and all vCPUs exist
 * with their MPIDR_EL1; the GIC and **every** ITS are created and initialised, because creating an ITS resets
 * GICR_PROPBASER, and without one GICR_CTLR is ignored; no vCPU runs, or has run with the GIC (KVM takes no
 * active state of a timer's PPI from then on). Blocks on what `issuer` blocks on. Errors: those of `issuer`;
 * BAD_IMAGE for what does not fit: a value its register, interrupts `nrIrqs`, active priorities ICC_CTLR_EL1.
 */
export function beginRestore(issuer: RestoreIssuer): BeforeDistributor {
  const issue: RestoreIssuer = (action) => {
    if ('value' in action) checkWidth(action.value, action.size);
    return issuer(action);
  };
  return {
    restoreDistributor: once(async (saved: SavedDistributor) => {
      await restoreDistributor(issue, saved);
      return { restoreRedistributors: once(redistributorStep(issue, saved)) };
    }),
  };
}

async function restoreDistributor(issue: RestoreIssuer, saved: SavedDistributor): Promise<void> {
  const { nrIrqs, iidr, typer2, ctlr } = saved;
  const set = (offset: number, value: bigint): void | Promise<void> =>
    issue({ device: 'gic', group: 'DIST_REGS', offset, value, size: 4 });
  if (nrIrqs !== undefined)
    await issue({
      device: 'gic',
      group: 'NR_IRQS',
      value: wordOf(nrIrqs, 'the number of interrupts'),
      size: 4,
    });
  await set(GICD.IIDR, iidr);
  if (typer2 !== undefined) await set(GICD.TYPER2, typer2);
  await set(GICD.CTLR, ctlr);
}

function redistributorStep(issue: RestoreIssuer, { nrIrqs, spis }: SavedDistributor) {
  return async (saved: readonly SavedRedistributor[]): Promise<BeforeIts> => {
    for (const each of saved) {
      const { vcpuId, propbaser, pendbaser, ctlr, interrupts, cpuInterface } = each;
      const vcpu = { vcpuId, mpidr: mpidrOf(each) };
      checkWidth(ctlr, 4);
      const set = (offset: number, value: bigint, size: 4 | 8): void | Promise<void> =>
        issue({ device: 'gic', group: 'REDIST_REGS', ...vcpu, offset, value, size });
      await set(GICR.PROPBASER, propbaser, 8);
      await set(GICR.PENDBASER, pendbaser, 8);
      // Before any LPI exists: enabled later, it would read back the bits that the tables' restore consumed.
      await set(GICR.CTLR, gicrCtlr.encode({ ...gicrCtlr.decode(ctlr), rwp: false }), 4);
      if (interrupts !== undefined)
        await restoreInterrupts(issue, interrupts, { first: 0, count: PRIVATE_INTERRUPTS, vcpu });
      if (cpuInterface !== undefined) await restoreCpuInterface(issue, cpuInterface, vcpu);
    }
    const [first] = saved;
    if (spis !== undefined && first !== undefined) {
      const count = spis.irouter.length;
      if (nrIrqs !== undefined && nrIrqs !== count + PRIVATE_INTERRUPTS)
        throw misfit(`${count} routes of SPIs were saved of a GIC with ${nrIrqs} interrupts`);
      // Their levels are asked for by a vCPU, and any does.
      const vcpu = { vcpuId: first.vcpuId, mpidr: mpidrOf(first) };
      await restoreInterrupts(issue, spis, { first: PRIVATE_INTERRUPTS, count, vcpu });
    }
    return itsStep(issue, 0);
  };
}

/** MPIDR_EL1 of a vCPU that was saved, or that is to be. */
export function mpidrOf({ vcpuId, mpidr }: Pick<SavedRedistributor, 'vcpuId' | 'mpidr'>): bigint {
  if (mpidr !== undefined) checkWidth(mpidr, 8);
  return mpidr ?? BigInt(affinityOf(vcpuId));
}

async function restoreInterrupts(
  issue: RestoreIssuer,
  saved: SavedInterrupts & { readonly irouter?: readonly bigint[] },
  stretch: InterruptStretch,
): Promise<void> {
  for (const { register, field, index, ones } of interruptAccesses(stretch)) {
    const values = field === undefined ? undefined : saved[field];
    if (field !== undefined && values?.length !== registersOf(field, stretch))
      throw misfit(`${values?.length ?? 'no'} values of ${field} were saved of ${stretch.count} interrupts`);
    await issue({ ...register, value: values === undefined ? ones : wordOf(values[index]!, field!) });
  }
}

async function restoreCpuInterface(
  issue: RestoreIssuer,
  saved: SavedCpuInterface,
  vcpu: InterruptStretch['vcpu'],
): Promise<void> {
  const most = activePriorityRegisters(saved.ctlr);
  if (saved.ap0r.length !== most || saved.ap1r.length !== most)
    throw misfit(`ICC_CTLR_EL1 has ${most} active priorities registers, not ${saved.ap0r.length}`);
  for (const name of CPU_INTERFACE_ORDER)
    for (const [index, value] of [saved[name]].flat().entries())
      await issue({
        device: 'gic',
        group: 'CPU_SYSREGS',
        ...vcpu,
        register: ICC[name] + index,
        size: 8,
        value,
      });
}

const misfit = (what: string): DemandPagingError =>
  new DemandPagingError('BAD_IMAGE', `this is no saved GIC: ${what}`);

/** A register of what came from elsewhere, whatever it is. */
function wordOf(value: number | bigint, name: string): bigint {
  if (typeof value === 'bigint' || Number.isSafeInteger(value)) return BigInt(value);
  throw misfit(`${String(value)} as ${name}`);
}

function checkWidth(value: bigint, bytes: number): void {
  if (typeof value !== 'bigint' || value < 0n || value >= 1n << BigInt(bytes * 8))
    throw misfit(`${String(value)} as a register of ${bytes * 8} bits`);
}

function itsStep(issue: RestoreIssuer, its: number): BeforeIts {
  const set = (offset: number, value: bigint, size: 4 | 8 = 8): void | Promise<void> =>
    issue({ device: 'its', its, group: 'ITS_REGS', offset, value, size });
  return {
    restoreItsRegisters: once(async (saved: SavedIts) => {
      checkWidth(saved.ctlr, 4);
      await issue({ device: 'its', its, group: 'ADDR', value: saved.base, size: 8 });
      await set(GITS.CBASER, saved.cbaser);
      await set(GITS.IIDR, saved.iidr, 4);
      await set(GITS.CREADR, saved.creadr);
      await set(GITS.CWRITER, saved.cwriter);
      await set(GITS.BASER0, saved.baser0);
      await set(GITS.BASER1, saved.baser1);
      return {
        restoreTables: once(async (prepare?: () => void | Promise<void>) => {
          await prepare?.();
          await issue({ device: 'its', its, group: 'CTRL', attribute: CONTROL.restoreTables });
          return {
            enableIts: once(async (prepareEnable?: () => void | Promise<void>) => {
              await prepareEnable?.();
              await set(GITS.CTLR, saved.ctlr & 1n, 4);
              return { nextIts: once(() => itsStep(issue, its + 1)) };
            }),
          };
        }),
      };
    }),
  };
}

/** A step that refuses to be taken twice. */
function once<A extends unknown[], R>(step: (...args: A) => R): (...args: A) => R {
  let taken = false;
  return (...args) => {
    if (taken) throw new TypeError('this step of the restore order was taken already');
    taken = true;
    return step(...args);
  };
}
