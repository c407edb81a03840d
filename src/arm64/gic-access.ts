/** A register or a setting of a GIC or ITS device that a VMM gets and sets by KVM_[GS]ET_DEVICE_ATTR. */
export type GicRegister =
  | {
      readonly device: 'gic';
      readonly group: 'DIST_REGS';
      readonly offset: number;
      /** Of 8 bytes KVM takes two u32, at `offset` and at `offset + 4`. */
      readonly size: 4 | 8;
    }
  | {
      readonly device: 'gic';
      readonly group: 'REDIST_REGS';
      readonly vcpuId: number;
      readonly mpidr: bigint;
      readonly offset: number;
      /** Of 8 bytes KVM takes two u32, at `offset` and at `offset + 4`. */
      readonly size: 4 | 8;
    }
  | {
      readonly device: 'gic';
      readonly group: 'CPU_SYSREGS';
      readonly vcpuId: number;
      readonly mpidr: bigint;
      /** op0, op1, CRn, CRm, op2 as the attribute has them. */
      readonly register: number;
      readonly size: 8;
    }
  | {
      readonly device: 'gic';
      readonly group: 'LEVEL_INFO';
      readonly vcpuId: number;
      readonly mpidr: bigint;
      /** The first of 32. */
      readonly intid: number;
      readonly size: 4;
    }
  /**
   * How many interrupts the GIC has besides LPIs. It is fixed once the GIC is initialised: a restore compares
   * it.
   */
  | { readonly device: 'gic'; readonly group: 'NR_IRQS'; readonly size: 4 }
  | { readonly device: 'its'; readonly its: number; readonly group: 'ADDR'; readonly size: 8 }
  | {
      readonly device: 'its';
      readonly its: number;
      readonly group: 'ITS_REGS';
      readonly offset: number;
      /** What the register has; KVM takes a u64 of either. */
      readonly size: 4 | 8;
    };

/** A command of a device: KVM_DEV_ARM_VGIC_GRP_CTRL, by attribute number. */
export type GicCommand =
  | { readonly device: 'gic'; readonly group: 'CTRL'; readonly attribute: number }
  | { readonly device: 'its'; readonly its: number; readonly group: 'CTRL'; readonly attribute: number };

/** A step of a save: a register to get, or a command to carry out. */
export type SaveAction = GicRegister | GicCommand;

/**
 * What carries a step of a save out, usually KVM_GET_DEVICE_ATTR or, for a command, KVM_SET_DEVICE_ATTR.
 * Gives the register's value; of a command anything. Rejecting stops the save there.
 */
export type SaveIssuer = (action: SaveAction) => bigint | Promise<bigint>;

/** A step of a restore: a register with the value to set, or a command of an ITS to carry out. */
export type RestoreAction =
  (GicRegister & { readonly value: bigint }) | Extract<GicCommand, { readonly device: 'its' }>;

/** What carries a step of a restore out: usually KVM_SET_DEVICE_ATTR. Rejecting stops the restore there. */
export type RestoreIssuer = (action: RestoreAction) => void | Promise<void>;
