import { type Program } from '../api/index.js';
import type { Status } from './errno.js';
import type { KernelQuirks } from './kernel-quirks.js';
import { GICD, GICR, GITS } from './registers.js';
import type { SavedDistributor, SavedIts, SavedRedistributor } from './restore-order.js';
import { Vgic } from './vgic.js';
import type { Mode } from './vgic-state.js';

/**
 * The registers a VMM saved: those that concern LPIs, and whatever else of the GIC {@link saveVgic} read. Plain data with
 * bigints: `v8.serialize` and structured clones take it as it is.
 */
export interface SavedVgic {
  readonly distributor: SavedDistributor;
  /** In order of vCPU creation. */
  readonly redistributors: readonly SavedRedistributor[];
  readonly itses: readonly SavedIts[];
}

/**
 * A GIC as a real one is in the order of {@link beginRestore} just before its tables are restored: to plan
 * from, or to restore with this library. The ITSes are still disabled, and no LPI exists; whether the distributor is
 * enabled is as `ctlr` says, and decides which LPIs enter a vCPU's list.
 *
 * `mode` is `kvm` unless it is given: what a plan for a real device needs. `quirks` have to be those of the kernel that
 * the device belongs to, {@link kernelQuirks}; without, they are the reference kernel's.
 *
 * Touches no guest memory: throws TypeError if a register write would, which in this order none does.
 * Errors: RangeError for vcpu_ids that are not distinct; TypeError if a register is refused.
 */
export function createSavedVgic(
  { distributor, redistributors, itses }: SavedVgic,
  options: { readonly mode?: Mode; readonly quirks?: KernelQuirks } = {},
): Vgic {
  const vcpuIds = redistributors.map(({ vcpuId }) => vcpuId);
  const { mode = 'kvm', ...others } = options;
  const vgic = new Vgic({ ...others, mode, vcpuIds, itsBases: itses.map(({ base }) => base) });
  const set = (name: string, status: Status): void => {
    if (status !== 0) throw new TypeError(`${name} is refused with errno ${-status}`);
  };
  set('GICD_IIDR', vgic.writeDistributorRegister(GICD.IIDR, distributor.iidr));
  set('GICD_CTLR', vgic.writeDistributorRegister(GICD.CTLR, distributor.ctlr));
  redistributors.forEach(({ propbaser, pendbaser, ctlr }, vcpu) => {
    set('GICR_PROPBASER', alone(vgic.writeRedistributorRegister(vcpu, GICR.PROPBASER, propbaser, 8)));
    set('GICR_PENDBASER', alone(vgic.writeRedistributorRegister(vcpu, GICR.PENDBASER, pendbaser, 8)));
    set('GICR_CTLR', alone(vgic.writeRedistributorRegister(vcpu, GICR.CTLR, ctlr & 1n, 4)));
  });
  itses.forEach((saved, its) => {
    for (const [name, value] of [
      ['CBASER', saved.cbaser],
      ['IIDR', saved.iidr],
      ['CREADR', saved.creadr],
      ['CWRITER', saved.cwriter],
      ['BASER0', saved.baser0],
      ['BASER1', saved.baser1],
    ] as const) {
      set(`GITS_${name} of ITS ${its}`, alone(vgic.writeItsRegister(its, GITS[name], value)));
    }
  });
  return vgic;
}

/** Runs a program that must not touch memory. */
function alone(program: Program<Status>): Status {
  const step = program.next();
  if (step.done === true) return step.value;
  program.return(0);
  throw new TypeError('a register write touched guest memory');
}
