import { DemandPagingError, hex, type Program } from '../api/index.js';
import type { Status } from './errno.js';
import type { KernelQuirks } from './kernel-quirks.js';
import { GICD, GICR, GITS } from './registers.js';
import type { SavedDistributor, SavedIts, SavedRedistributor } from './restore-order.js';
import { Vgic } from './vgic.js';
import type { Mode } from './vgic-state.js';

/**
 * The registers a VMM saved: those that concern LPIs, and whatever else of the GIC {@link saveVgic} read.
 * Plain data with bigints: `v8.serialize` and structured clones take it as it is.
 */
export interface SavedVgic {
  readonly distributor: SavedDistributor;
  /** In order of vCPU creation. */
  readonly redistributors: readonly SavedRedistributor[];
  readonly itses: readonly SavedIts[];
}

/**
 * A GIC as a real one is in the order of {@link beginRestore} just before its tables are restored: to plan
 * from, or to restore with this library. The ITSes are still disabled, and no LPI exists; whether the
 * distributor is enabled is as `ctlr` says, and decides which LPIs enter a vCPU's list.
 *
 * `mode` is `kvm` unless it is given: what a plan for a real device needs. `quirks` have to be those of the
 * kernel that the device belongs to, {@link kernelQuirks}; without, they are the reference kernel's.
 *
 * Touches no guest memory: throws TypeError if a register write would, which in this order none does. Errors:
 * BAD_IMAGE, naming register and place, if a register's value is one that KVM refuses, or if vcpu_ids are not
 * distinct: what is saved comes from elsewhere, and may be damaged.
 */
export function createSavedVgic(
  { distributor, redistributors, itses }: SavedVgic,
  options: { readonly mode?: Mode; readonly quirks?: KernelQuirks } = {},
): Vgic {
  const vcpuIds = redistributors.map(({ vcpuId }) => vcpuId);
  checkVcpuIds(vcpuIds);
  const { mode = 'kvm', ...others } = options;
  const vgic = new Vgic({ ...others, mode, vcpuIds, itsBases: itses.map(({ base }) => base) });
  const set = (place: string, value: bigint, status: Status): void => {
    if (status === 0) return;
    throw new DemandPagingError('BAD_IMAGE', `${place} was saved as ${hex(value)}, which KVM refuses`, {
      errno: -status,
      syscall: 'KVM_SET_DEVICE_ATTR',
      hint: 'The saved registers are damaged, or of another kind of GIC',
    });
  };
  set('GICD_IIDR', distributor.iidr, vgic.writeDistributorRegister(GICD.IIDR, distributor.iidr));
  set('GICD_CTLR', distributor.ctlr, vgic.writeDistributorRegister(GICD.CTLR, distributor.ctlr));
  redistributors.forEach(({ propbaser, pendbaser, ctlr }, vcpu) => {
    for (const [name, value, size] of [
      ['PROPBASER', propbaser, 8],
      ['PENDBASER', pendbaser, 8],
      ['CTLR', ctlr & 1n, 4],
    ] as const) {
      const status = alone(vgic.writeRedistributorRegister(vcpu, GICR[name], value, size));
      set(`GICR_${name} of vCPU ${vcpu}`, value, status);
    }
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
      set(`GITS_${name} of ITS ${its}`, value, alone(vgic.writeItsRegister(its, GITS[name], value)));
    }
  });
  return vgic;
}

function checkVcpuIds(ids: readonly number[]): void {
  const wrong = ids.findIndex(
    (id, at) => !Number.isInteger(id) || id < 0 || id >= 0xffff_ffff || ids.indexOf(id) < at,
  );
  if (wrong < 0) return;
  const what = `the vcpu_id of redistributor ${wrong}, ${ids[wrong]}, is no 32-bit id of its own`;
  throw new DemandPagingError('BAD_IMAGE', what, { hint: 'vcpu_ids are distinct, and below 2^32 - 1' });
}

/** Runs a program that must not touch memory. */
function alone(program: Program<Status>): Status {
  const step = program.next();
  if (step.done === true) return step.value;
  program.return(0);
  throw new TypeError('a register write touched guest memory');
}
