/** KVM of arm64 as numbers: register identities, vCPU features, and the groups of the VGIC devices. */

const KVM_REG_ARM64 = 0x6000_0000_0000_0000n;
const KVM_REG_SIZE_U64 = 0x0030_0000_0000_0000n;
const KVM_REG_ARM_CORE = 0x0010_0000n;
const KVM_REG_ARM64_SYSREG = 0x0013_0000n;

/** Bits of `features` in `struct kvm_vcpu_init`. */
export const KVM_ARM_VCPU = {
  POWER_OFF: 0,
  EL1_32BIT: 1,
  PSCI_0_2: 2,
  PMU_V3: 3,
  SVE: 4,
  PTRAUTH_ADDRESS: 5,
  PTRAUTH_GENERIC: 6,
  HAS_EL2: 7,
  HAS_EL2_E2H0: 8,
} as const;

/** Groups of KVM_SET_DEVICE_ATTR on a VGIC or ITS. Source: arm-vgic-v3.rst, arm-vgic-its.rst. */
export const KVM_DEV_ARM_VGIC_GRP = {
  ADDR: 0,
  DIST_REGS: 1,
  CPU_REGS: 2,
  NR_IRQS: 3,
  CTRL: 4,
  REDIST_REGS: 5,
  CPU_SYSREGS: 6,
  LEVEL_INFO: 7,
  ITS_REGS: 8,
  MAINT_IRQ: 9,
} as const;

/** Attributes of the CTRL group. */
export const KVM_DEV_ARM_CTRL = {
  VGIC_CTRL_INIT: 0,
  ITS_SAVE_TABLES: 1,
  ITS_RESTORE_TABLES: 2,
  VGIC_SAVE_PENDING_TABLES: 3,
  ITS_CTRL_RESET: 4,
} as const;

/** Attributes of the ADDR group. */
export const KVM_VGIC_ADDR_TYPE = {
  V2_DIST: 0,
  V2_CPU: 1,
  V3_DIST: 2,
  V3_REDIST: 3,
  ITS: 4,
  V3_REDIST_REGION: 5,
} as const;

/** Where the attributes of the groups that hold registers have what they name. */
export const KVM_DEV_ARM_VGIC_SHIFT = { MPIDR: 32, LINE_LEVEL_INFO: 10 } as const;
/** The one kind of information that LEVEL_INFO has. */
export const VGIC_LEVEL_INFO_LINE_LEVEL = 0;

/**
 * The attribute of a vCPU's register: its affinity as the groups REDIST_REGS, CPU_SYSREGS and LEVEL_INFO have
 * it, above what the group says of the register. `mpidr` is MPIDR_EL1, in which Aff3 does not follow on Aff2.
 */
export function vgicAttribute(mpidr: bigint, register: number): bigint {
  const affinity = (((mpidr >> 32n) & 0xffn) << 24n) | (mpidr & 0xff_ffffn);
  return (affinity << BigInt(KVM_DEV_ARM_VGIC_SHIFT.MPIDR)) | BigInt(register);
}

/** What `irq` of KVM_IRQ_LINE is about; in its bits [27:24]. */
export const KVM_ARM_IRQ_TYPE = { CPU: 0, SPI: 1, PPI: 2 } as const;

/** `irq` of KVM_IRQ_LINE; `vcpu` is a vCPU's index, for a PPI. */
export function arm64IrqLine(type: keyof typeof KVM_ARM_IRQ_TYPE, intid: number, vcpu = 0): number {
  return (((vcpu >>> 8) << 28) | (KVM_ARM_IRQ_TYPE[type] << 24) | ((vcpu & 0xff) << 16) | intid) >>> 0;
}

/** Byte offsets into `struct kvm_regs` of arm64, for {@link arm64CoreRegister}. */
export const ARM64_CORE_OFFSET = {
  x0: 0,
  sp: 248,
  pc: 256,
  pstate: 264,
  sp_el1: 272,
  elr_el1: 280,
  spsr: 288,
} as const;

/** The identity of a core register: `x0` to `x30`, `sp`, `pc`, `pstate`, `sp_el1`, `elr_el1`. */
export function arm64CoreRegister(name: string): bigint {
  const general = /^x(\d|[12]\d|30)$/.exec(name);
  const offset = general ? Number(general[1]) * 8 : ARM64_CORE_OFFSET[name as keyof typeof ARM64_CORE_OFFSET];
  if (offset === undefined) throw new RangeError(`no core register ${name}`);
  return KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | BigInt(offset / 4);
}

/** The identity of a system register by its encoding. */
export function arm64SystemRegister(op0: number, op1: number, crn: number, crm: number, op2: number): bigint {
  const encoding = (op0 << 14) | (op1 << 11) | (crn << 7) | (crm << 3) | op2;
  return KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM64_SYSREG | BigInt(encoding);
}

/** Bytes of the register that an identity names. */
export const registerBytes = (id: bigint): number => 1 << Number((id >> 52n) & 0xfn);
