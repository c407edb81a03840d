import { smallField } from './bit-field.js';

/*
 * The CPU interface: ICC_*_EL1, which KVM takes as KVM_DEV_ARM_VGIC_GRP_CPU_SYSREGS. Sources: Arm IHI 0069,
 * arm-vgic-v3.rst, vgic-sys-reg-v3.c.
 */

/** State of one vCPU's CPU interface, registers by name. */
export interface SavedCpuInterface {
  readonly sre: bigint;
  readonly ctlr: bigint;
  readonly pmr: bigint;
  readonly bpr0: bigint;
  readonly bpr1: bigint;
  readonly igrpen0: bigint;
  readonly igrpen1: bigint;
  /** One, two or four, as many as ICC_CTLR_EL1.PRIbits has groups of priorities for. */
  readonly ap0r: readonly bigint[];
  readonly ap1r: readonly bigint[];
}

export type CpuInterfaceField = keyof SavedCpuInterface;

/** A system register as the attribute of CPU_SYSREGS has it; all are op0 3, op1 0. */
const icc = (crn: number, crm: number, op2: number): number => (3 << 14) | (crn << 7) | (crm << 3) | op2;

const APR_MOST = 4;

/** The attribute of each register; those of an array follow one another. */
export const ICC: Readonly<Record<CpuInterfaceField, number>> = {
  pmr: icc(4, 6, 0),
  bpr0: icc(12, 8, 3),
  ap0r: icc(12, 8, 4),
  ap1r: icc(12, 9, 0),
  bpr1: icc(12, 12, 3),
  ctlr: icc(12, 12, 4),
  sre: icc(12, 12, 5),
  igrpen0: icc(12, 12, 6),
  igrpen1: icc(12, 12, 7),
};

/** The order of restoring: ICC_CTLR_EL1 first, which says how many active priorities registers there are. */
export const CPU_INTERFACE_ORDER: readonly CpuInterfaceField[] = [
  'sre',
  'ctlr',
  'igrpen0',
  'igrpen1',
  'pmr',
  'bpr0',
  'bpr1',
  'ap0r',
  'ap1r',
];

/** How many active priorities registers a CPU interface with this ICC_CTLR_EL1 has of each group. */
export function activePriorityRegisters(ctlr: bigint): number {
  const priorityBits = smallField(ctlr, 10, 8) + 1;
  return Math.min(APR_MOST, 1 << Math.max(0, priorityBits - 5));
}
