import { GICD, GICR, GITS, gicrCtlr } from './registers.js';
import { CONTROL } from './its-operations.js';

/*
 * The order in which a VMM has to put GIC and ITS state back into a real KVM device
 * (Documentation/virt/kvm/devices/arm-vgic-its.rst, "ITS Restore Sequence", and arm-vgic-v3.rst).
 * Each step returns the next step's type, so a program that compiles has the order right.
 */

/** One device ioctl: which device, attribute group and attribute, and the value to set. */
export type RestoreAction =
  | {
      readonly device: 'gic';
      readonly group: 'DIST_REGS';
      readonly offset: number;
      readonly value: bigint;
      readonly size: 4;
    }
  | {
      readonly device: 'gic';
      readonly group: 'REDIST_REGS';
      /** vcpu_id, from which the attribute's MPIDR field follows. */
      readonly vcpuId: number;
      readonly offset: number;
      readonly value: bigint;
      readonly size: 4 | 8;
    }
  | { readonly device: 'its'; readonly its: number; readonly group: 'ADDR'; readonly value: bigint }
  | {
      readonly device: 'its';
      readonly its: number;
      readonly group: 'ITS_REGS';
      readonly offset: number;
      readonly value: bigint;
      readonly size: 4 | 8;
    }
  | { readonly device: 'its'; readonly its: number; readonly group: 'CTRL'; readonly attribute: number };

/** What carries an action out: usually KVM_SET_DEVICE_ATTR. Rejecting stops the restore there. */
export type RestoreIssuer = (action: RestoreAction) => void | Promise<void>;

export interface SavedDistributor {
  /** GICD_IIDR: it selects behaviour, so it comes before every other distributor register. */
  readonly iidr: bigint;
  readonly ctlr: bigint;
}

export interface SavedRedistributor {
  readonly vcpuId: number;
  readonly propbaser: bigint;
  readonly pendbaser: bigint;
  readonly ctlr: bigint;
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

/** Memory and vCPUs are there; nothing of the GIC is. */
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
  /** Writes CTLR last: it executes commands that were still queued. */
  enableIts(): Promise<ItsRestored>;
}
export interface ItsRestored {
  /** Another ITS of the same VM, by the same order. */
  nextIts(): BeforeIts;
  /** Forwarding of interrupts: the rest of GICD_CTLR. */
  finish(): Promise<void>;
}

/**
 * Starts the documented order. Each step may be taken once; a second call, or one on a step that was
 * passed, throws TypeError. Nothing is issued twice, and after a rejection nothing more is issued.
 *
 * Preconditions: guest memory (its pages may be missing if something answers the faults) and all vCPUs
 * exist; no vCPU runs. Blocks on what `issue` blocks on. Errors: those of `issue`.
 */
export function beginRestore(issue: RestoreIssuer): BeforeDistributor {
  const gic = (offset: number, value: bigint): RestoreAction => ({
    device: 'gic',
    group: 'DIST_REGS',
    offset,
    value,
    size: 4,
  });
  return {
    restoreDistributor: once(async (saved: SavedDistributor) => {
      await issue(gic(GICD.IIDR, saved.iidr));
      const finish = async (): Promise<void> => void (await issue(gic(GICD.CTLR, saved.ctlr)));
      return { restoreRedistributors: once(redistributorStep(issue, finish)) };
    }),
  };
}

function redistributorStep(issue: RestoreIssuer, finish: () => Promise<void>) {
  return async (saved: readonly SavedRedistributor[]): Promise<BeforeIts> => {
    for (const { vcpuId, propbaser, pendbaser, ctlr } of saved) {
      const set = (offset: number, value: bigint, size: 4 | 8): void | Promise<void> =>
        issue({ device: 'gic', group: 'REDIST_REGS', vcpuId, offset, value, size });
      await set(GICR.PROPBASER, propbaser, 8);
      await set(GICR.PENDBASER, pendbaser, 8);
      // Before any LPI exists: enabled later, it would read back the bits that the tables' restore consumed.
      await set(GICR.CTLR, gicrCtlr.encode({ ...gicrCtlr.decode(ctlr), rwp: false }), 4);
    }
    return itsStep(issue, 0, finish);
  };
}

function itsStep(issue: RestoreIssuer, its: number, finish: () => Promise<void>): BeforeIts {
  const set = (offset: number, value: bigint, size: 4 | 8 = 8): void | Promise<void> =>
    issue({ device: 'its', its, group: 'ITS_REGS', offset, value, size });
  return {
    restoreItsRegisters: once(async (saved: SavedIts) => {
      await issue({ device: 'its', its, group: 'ADDR', value: saved.base });
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
            enableIts: once(async () => {
              await set(GITS.CTLR, saved.ctlr & 1n, 4);
              return { nextIts: once(() => itsStep(issue, its + 1, finish)), finish: once(finish) };
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
