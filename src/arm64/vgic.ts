import { type Program } from '../api/index.js';
import { UNMAPPED_TARGET } from './collection.js';
import type { Status } from './errno.js';
import type { Its } from './its.js';
import { CONTROL, itsControl, saveAllPending } from './its-operations.js';
import { readItsRegister, writeItsRegister } from './its-registers.js';
import { LPI_ENABLED, LPI_PENDING } from './lpi-store.js';
import { signalMsi, type Msi } from './msi.js';
import {
  distributorRegister,
  redistributorRegister,
  writeDistributorRegister,
  writeRedistributorRegister,
} from './redistributor-registers.js';
import { type Mode, type VgicOptions, VgicState } from './vgic-state.js';
import type { WorkLimits } from './work.js';

/** An LPI as the kernel's debug output shows it. */
export interface LpiView {
  readonly intid: number;
  /** Index of the target vCPU, or -1. */
  readonly target: number;
  readonly pending: boolean;
  readonly enabled: boolean;
  readonly priority: number;
  /** Index of the vCPU on whose ap_list it is, or -1. */
  readonly apList: number;
}

/** A translation table entry, likewise. */
export interface EntryView {
  readonly device: number;
  readonly eventBits: number;
  readonly event: number;
  readonly intid: number;
  /** ICID, or undefined for an entry without a collection. */
  readonly collection: number | undefined;
  /** RDbase the collection is mapped to, or -1. */
  readonly target: number;
}

/**
 * A virtual GICv3 as far as LPIs go, with one ITS or several: KVM's semantics, without I/O. Every
 * operation that may touch guest memory is a {@link Program}: it touches what it yields and nothing
 * else, and a driver decides what a missing page does. Results are those of the ioctl of the same
 * purpose: 0, or minus an errno.
 *
 * Preconditions: one operation at a time; a second program started before the first has ended throws
 * TypeError at its first step. An abandoned program must be closed with `return()`, which leaves the
 * state as it happens to be: in `transactional` mode, too, only a program that ends keeps the promise.
 *
 * Who may block: nobody here; the driver of the program, on the pages it yields.
 *
 * Errors (errno as from the kernel): EFAULT 14 a page or address is not there; EINVAL 22 a malformed
 * entry or offset; EEXIST 17 restore onto what exists; EBUSY 16 a vCPU runs, or CREADR of an enabled
 * ITS; ENXIO 6 no ITS base, unknown register or attribute. A program throws LIMIT_REACHED if the operation
 * would take more steps or make more entries than its bounds allow ({@link VgicOptions}): in `transactional`
 * mode a restore is undone by then; what else the operation did by then stays.
 *
 * Source: Linux Documentation/virt/kvm/devices/arm-vgic-v3.rst and arm-vgic-its.rst.
 */
export class Vgic {
  readonly #state: VgicState;
  #busy = false;

  constructor(options: VgicOptions | VgicState) {
    this.#state = options instanceof VgicState ? options : new VgicState(options);
  }

  get mode(): Mode {
    return this.#state.mode;
  }

  /** Number of LPIs that exist. */
  get lpiCount(): number {
    return this.#state.lpis.count;
  }

  /** Bytes of typed arrays that hold LPIs and entries, for measuring. */
  get state_bytes(): number {
    const devices = this.#state.itses.flatMap((its) => its.devices);
    return devices.reduce((sum, { byteLength }) => sum + byteLength, this.#state.lpis.byteLength);
  }

  /** By which RDbase commands and saved collections name a vCPU: vcpu_id, or index on old kernels. */
  rdbase(vcpu: number): number {
    this.#redistributor(vcpu);
    return this.#state.rdbase(vcpu);
  }

  /** Tells that vCPUs run: attributes are refused with EBUSY until they do not. Default false. */
  set vcpusRunning(running: boolean) {
    this.#state.vcpusRunning = running;
  }

  /**
   * A copy that shares nothing, in the same or another mode, with the same or other bounds. Throws TypeError
   * while an operation runs.
   */
  clone(mode: Mode = this.mode, limits: WorkLimits = {}): Vgic {
    if (this.#busy) throw new TypeError('cannot copy a GIC in the middle of an operation');
    return new Vgic(this.#state.clone(mode, limits));
  }

  /** Sets the base of an ITS frame (KVM_VGIC_ITS_ADDR_TYPE). Throws TypeError if it has one. */
  setItsBase(its: number, base: bigint): void {
    const target = this.#its(its);
    if (target.base !== undefined) throw new TypeError(`ITS ${its} has a base already`);
    target.base = base;
  }

  readItsRegister(its: number, offset: number): { readonly status: Status; readonly value: bigint } {
    return readItsRegister(this.#state, this.#its(its), offset);
  }

  /** KVM_DEV_ARM_VGIC_GRP_ITS_REGS. Writing GITS_CTLR or GITS_CWRITER executes queued commands. */
  writeItsRegister(its: number, offset: number, value: bigint): Program<Status> {
    return this.#alone(() => writeItsRegister(this.#state, this.#its(its), offset, value));
  }

  /** GICR_* of a vCPU by index: 64 bits of those that have them. */
  readRedistributorRegister(vcpu: number, offset: number): bigint {
    this.#redistributor(vcpu);
    return redistributorRegister(this.#state, vcpu, offset);
  }

  /** KVM_DEV_ARM_VGIC_GRP_REDIST_REGS; size 8 is two accesses, low half first. */
  writeRedistributorRegister(vcpu: number, offset: number, value: bigint, size: 4 | 8): Program<Status> {
    this.#redistributor(vcpu);
    return this.#alone(() => writeRedistributorRegister(this.#state, vcpu, offset, value, size));
  }

  readDistributorRegister(offset: number): bigint {
    return distributorRegister(this.#state, offset);
  }

  /** KVM_DEV_ARM_VGIC_GRP_DIST_REGS of the registers that concern LPIs. Touches no guest memory. */
  writeDistributorRegister(offset: number, value: bigint): Status {
    return writeDistributorRegister(this.#state, offset, value);
  }

  /** KVM_DEV_ARM_ITS_SAVE_TABLES. */
  saveTables(its = 0): Program<Status> {
    return this.itsControl(its, CONTROL.saveTables);
  }

  /** KVM_DEV_ARM_ITS_RESTORE_TABLES. */
  restoreTables(its = 0): Program<Status> {
    return this.itsControl(its, CONTROL.restoreTables);
  }

  /** KVM_DEV_ARM_ITS_CTRL_RESET. Touches no guest memory. */
  resetIts(its = 0): Program<Status> {
    return this.itsControl(its, CONTROL.reset);
  }

  /** KVM_DEV_ARM_VGIC_GRP_CTRL of an ITS by attribute number. */
  itsControl(its: number, attribute: number): Program<Status> {
    return this.#alone(() => itsControl(this.#state, this.#its(its), attribute));
  }

  /** KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES. */
  savePendingTables(): Program<Status> {
    return this.#alone(() => saveAllPending(this.#state));
  }

  /** KVM_SIGNAL_MSI: 1 delivered, 0 blocked by the guest, or minus an errno. Touches no guest memory. */
  signalMsi(msi: Msi): number {
    if (this.#busy) throw new TypeError('another operation on this GIC is under way');
    return signalMsi(this.#state, msi);
  }

  /** Every LPI, by ascending INTID. */
  *lpis(): Generator<LpiView> {
    const { lpis } = this.#state;
    for (const slot of lpis.ordered('intid')) {
      const flags = lpis.flags[slot]!;
      yield {
        intid: lpis.intid[slot]!,
        target: lpis.target[slot]!,
        pending: (flags & LPI_PENDING) !== 0,
        enabled: (flags & LPI_ENABLED) !== 0,
        priority: lpis.priority[slot]!,
        apList: lpis.apList[slot]!,
      };
    }
  }

  /** Every entry of an ITS in the kernel's list order. */
  *entries(its = 0): Generator<EntryView> {
    const source = this.#its(its);
    for (const device of source.devices) {
      for (let row = 0; row < device.count; row++) {
        const collection = source.collectionOf(device, row);
        const target = collection?.target ?? UNMAPPED_TARGET;
        yield {
          device: device.id,
          eventBits: device.eventBits,
          event: device.event(row),
          intid: this.#state.lpis.intid[device.lpi(row)]!,
          collection: collection?.id,
          target: target === UNMAPPED_TARGET ? -1 : target,
        };
      }
    }
  }

  /** Every collection of an ITS: its ICID and the RDbase it is mapped to, or -1. */
  *collections(its = 0): Generator<{ readonly id: number; readonly target: number }> {
    for (const { id, target } of this.#its(its).collections) {
      yield { id, target: target === UNMAPPED_TARGET ? -1 : target };
    }
  }

  /** Every device of an ITS in list order, also those without entries. */
  *devices(its = 0): Generator<{ readonly id: number; readonly itt: bigint; readonly eventBits: number }> {
    for (const { id, itt, eventBits } of this.#its(its).devices) yield { id, itt: BigInt(itt), eventBits };
  }

  *#alone(operation: () => Program<Status>): Program<Status> {
    if (this.#busy) throw new TypeError('another operation on this GIC is under way');
    this.#busy = true;
    try {
      return yield* operation();
    } finally {
      this.#busy = false;
    }
  }

  #its(index: number): Its {
    const its = this.#state.itses[index];
    if (its === undefined) throw new RangeError(`there is no ITS ${index}`);
    return its;
  }

  #redistributor(index: number): void {
    if (this.#state.redistributors[index] === undefined) throw new RangeError(`there is no vCPU ${index}`);
  }
}
