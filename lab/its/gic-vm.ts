import { GICD, GICR, type GicRegister, GITS, mpidrOf } from 'demand-paging/arm64';
import { type GicAnswer, KvmGic } from 'demand-paging/kvm';
import {
  type Kvm,
  KVM,
  KVM_DEV_ARM_CTRL,
  KVM_SIZE,
  type KvmVcpu,
  type KvmVm,
  NativeBlock,
  raw,
} from 'demand-paging/linux';

export interface GicSpec {
  readonly vcpuIds: readonly number[];
  /** Undefined for one that gets its base later. */
  readonly itsBases: readonly (bigint | undefined)[];
  readonly gicdBase: bigint;
  readonly gicrBase: bigint;
}

/** Where a slot of guest memory lies in this process. */
export interface PlacedSlot {
  readonly gpa: number;
  readonly length: number;
  readonly userspace: number;
}

const ITS_REGISTERS = ['CTLR', 'IIDR', 'TYPER', 'CBASER', 'CWRITER', 'CREADR', 'BASER0', 'BASER1'] as const;
const GICR_REGISTERS = ['CTLR', 'TYPER', 'PROPBASER', 'PENDBASER'] as const;
/** Of these registers 64 bits count. */
const WIDE: readonly string[] = ['TYPER', 'PROPBASER', 'PENDBASER'];

/**
 * A VM of the real KVM with a vGICv3 and ITSes, driven by device attributes: statuses are KVM's, nothing is
 * thrown for one.
 */
export class GicVm {
  readonly vm: KvmVm;
  readonly vcpus: readonly KvmVcpu[];
  readonly gic: KvmGic;
  readonly #msi = new NativeBlock(KVM_SIZE.msi);

  constructor(
    kvm: Kvm,
    readonly spec: GicSpec,
    slots: readonly PlacedSlot[],
  ) {
    this.vm = kvm.createVm();
    slots.forEach((each, slot) => this.vm.setSlot({ slot, ...each }));
    const target = this.vm.preferredTarget();
    this.vcpus = spec.vcpuIds.map((id) => {
      const vcpu = this.vm.createVcpu(id);
      vcpu.initialise(target);
      return vcpu;
    });
    const { gicdBase: distributor, gicrBase: redistributors, itsBases: itses } = spec;
    this.gic = KvmGic.create(this.vm, { distributor, redistributors, itses });
  }

  setIts(its: number, offset: bigint, value: bigint): number {
    return this.gic.trySet(itsRegister(its, Number(offset)), value);
  }

  getIts(its: number, offset: bigint): GicAnswer {
    return this.gic.tryGet(itsRegister(its, Number(offset)));
  }

  setRedistributor(vcpu: number, offset: bigint, value: bigint, size: 4 | 8): number {
    return this.gic.trySet(this.#redistributor(vcpu, Number(offset), size), value);
  }

  setDistributor(offset: bigint, value: bigint, size: 4 | 8): number {
    return this.gic.trySet({ device: 'gic', group: 'DIST_REGS', offset: Number(offset), size }, value);
  }

  getDistributor(offset: bigint): GicAnswer {
    return this.gic.tryGet({ device: 'gic', group: 'DIST_REGS', offset: Number(offset), size: 4 });
  }

  /** KVM_DEV_ARM_VGIC_GRP_CTRL of an ITS: save, restore, reset, or whatever the number means. */
  itsControl(its: number, attribute: number): number {
    return this.gic.tryCommand({ device: 'its', its, group: 'CTRL', attribute });
  }

  savePending(): number {
    const attribute = KVM_DEV_ARM_CTRL.VGIC_SAVE_PENDING_TABLES;
    return this.gic.tryCommand({ device: 'gic', group: 'CTRL', attribute });
  }

  signalMsi(address: bigint, flags: number, device: number, event: number): number {
    const { view, words, bytes } = this.#msi;
    bytes.fill(0);
    view.setBigUint64(0, address, true);
    words[2] = event;
    words[3] = flags;
    words[4] = device;
    return raw.ioctl(this.vm.fd, KVM.SIGNAL_MSI, this.#msi.address);
  }

  /** Every register that vectors record, by the name they have there. */
  registers(): Map<string, bigint> {
    const all = new Map<string, bigint>();
    for (const its of this.spec.itsBases.keys())
      for (const name of ITS_REGISTERS)
        all.set(`GITS${its || ''}_${name}`, this.#must(itsRegister(its, GITS[name])));
    for (const vcpu of this.vcpus.keys())
      for (const name of GICR_REGISTERS) {
        const register = this.#redistributor(vcpu, GICR[name], WIDE.includes(name) ? 8 : 4);
        all.set(`GICR${vcpu}_${name}`, this.#must(register));
      }
    all.set('GICD_CTLR', this.#must({ device: 'gic', group: 'DIST_REGS', offset: GICD.CTLR, size: 4 }));
    return all;
  }

  close(): void {
    this.gic.close();
    for (const vcpu of this.vcpus) vcpu.close();
    this.vm.close();
    this.#msi.free();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #redistributor(vcpu: number, offset: number, size: 4 | 8): GicRegister {
    const vcpuId = this.spec.vcpuIds[vcpu]!;
    return { device: 'gic', group: 'REDIST_REGS', vcpuId, mpidr: mpidrOf({ vcpuId }), offset, size };
  }

  #must(register: GicRegister): bigint {
    const { status, value } = this.gic.tryGet(register);
    if (status !== 0) throw new Error(`reading a register: KVM answers ${status}`);
    return value;
  }
}

const itsRegister = (its: number, offset: number): GicRegister => ({
  device: 'its',
  its,
  group: 'ITS_REGS',
  offset,
  size: 8,
});
