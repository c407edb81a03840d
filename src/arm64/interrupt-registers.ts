import type { GicRegister } from './gic-access.js';

/**
 * Registers that hold the state of interrupts other than LPIs. SPIs have theirs in the distributor, SGIs and
 * PPIs at the same offsets in the second frame of their redistributor. Sources: Arm IHI 0069,
 * arm-vgic-v3.rst, and what KVM makes of an access by KVM_SET_DEVICE_ATTR (vgic-mmio-v3.c).
 */

/** INTIDs below are SGIs and PPIs: each vCPU's own. */
export const PRIVATE_INTERRUPTS = 32;
/** Of a redistributor's second frame. */
const SGI_FRAME = 0x1_0000;
const ALL_ONES = 0xffff_ffffn;

/** Offset of the register for INTID 0, and how many bits each interrupt has. */
const REGISTERS = {
  igroupr: { offset: 0x80, bits: 1 },
  irouter: { offset: 0x6000, bits: 64 },
  icfgr: { offset: 0xc00, bits: 2 },
  ipriorityr: { offset: 0x400, bits: 8 },
  icenabler: { offset: 0x180, bits: 1 },
  isenabler: { offset: 0x100, bits: 1 },
  ispendr: { offset: 0x200, bits: 1 },
  icactiver: { offset: 0x380, bits: 1 },
  isactiver: { offset: 0x300, bits: 1 },
} as const;

/**
 * State of interrupts other than LPIs: the SPIs of a distributor, or the SGIs and PPIs of a redistributor.
 * 32-bit registers by their names, that of the lowest INTIDs first.
 */
export interface SavedInterrupts {
  readonly igroupr: readonly number[];
  readonly icfgr: readonly number[];
  readonly ipriorityr: readonly number[];
  readonly isenabler: readonly number[];
  /** KVM_DEV_ARM_VGIC_GRP_LEVEL_INFO: what devices hold the lines at, which no register shows. */
  readonly lineLevel: readonly number[];
  /**
   * The latch alone: the interface gives it without the level of the line, and takes ones and zeros alike.
   */
  readonly ispendr: readonly number[];
  readonly isactiver: readonly number[];
}

/** {@link SavedInterrupts} of the distributor. */
export interface SavedSpis extends SavedInterrupts {
  /** 64 bits each, that of INTID 32 first. */
  readonly irouter: readonly bigint[];
}

/** A stretch of interrupts: of the distributor, or of one vCPU. */
export interface InterruptStretch {
  readonly first: number;
  readonly count: number;
  /** Whose redistributor; of the distributor, the vCPU by which LEVEL_INFO is asked. */
  readonly vcpu: { readonly vcpuId: number; readonly mpidr: bigint };
}

export type InterruptField = keyof SavedSpis;
type Name = InterruptField | 'icenabler' | 'icactiver';

/**
 * The order of restoring. An interrupt enters a vCPU's list when its level or its latch is set, so what
 * decides that, and where it goes, comes before: group, route, edge or level, priority, enable. `clears` are
 * for a GIC that was in use: what is written to them clears bits, while ISENABLER and ISACTIVER can only set
 * them. ICPENDR is ignored by KVM.
 */
const ORDER: readonly { readonly name: Name; readonly clears?: true }[] = [
  { name: 'igroupr' },
  { name: 'irouter' },
  { name: 'icfgr' },
  { name: 'ipriorityr' },
  { name: 'icenabler', clears: true },
  { name: 'isenabler' },
  { name: 'lineLevel' },
  { name: 'ispendr' },
  { name: 'icactiver', clears: true },
  { name: 'isactiver' },
];

/** An access to a register of a stretch: which of which field, or a write of ones that clears. */
export interface InterruptAccess {
  readonly register: GicRegister;
  readonly field: InterruptField | undefined;
  readonly index: number;
  /** What to write where there is no field. */
  readonly ones: bigint;
}

const isDistributor = ({ first }: InterruptStretch): boolean => first >= PRIVATE_INTERRUPTS;

/** How many registers of a field a stretch has. */
export function registersOf(name: InterruptField, stretch: InterruptStretch): number {
  if (name === 'irouter') return isDistributor(stretch) ? stretch.count : 0;
  return (stretch.count * (name === 'lineLevel' ? 1 : REGISTERS[name].bits)) / 32;
}

/** Every access of a stretch in the order of restoring. A save takes those that have a field. */
export function* interruptAccesses(stretch: InterruptStretch): Generator<InterruptAccess> {
  for (const { name, clears } of ORDER) {
    const field = clears ? undefined : (name as InterruptField);
    const registers = registersOf(field ?? 'isenabler', stretch);
    for (let index = 0; index < registers; index++)
      yield { field, index, register: registerOf(name, index, stretch), ones: ALL_ONES };
  }
}

function registerOf(name: Name, index: number, stretch: InterruptStretch): GicRegister {
  const { first, vcpu } = stretch;
  if (name === 'lineLevel')
    return { device: 'gic', group: 'LEVEL_INFO', ...vcpu, intid: first + index * 32, size: 4 };
  const { offset, bits } = REGISTERS[name];
  const size = bits === 64 ? 8 : 4;
  const at = offset + (first * bits) / 8 + index * size;
  if (isDistributor(stretch)) return { device: 'gic', group: 'DIST_REGS', offset: at, size };
  return { device: 'gic', group: 'REDIST_REGS', ...vcpu, offset: SGI_FRAME + at, size };
}
