import { GICD, GICR, GITS } from 'demand-paging/arm64';
import {
  type Kvm,
  KVM,
  KVM_DEV_ARM_CTRL,
  KVM_DEV_ARM_VGIC_GRP,
  KVM_DEV_TYPE,
  KVM_SIZE,
  KVM_VGIC_ADDR_TYPE,
  type KvmDevice,
  type KvmVcpu,
  type KvmVm,
  NativeBlock,
  raw,
} from 'demand-paging/linux';

export interface GicSpec {
  readonly vcpuIds: readonly number[];
  /** Undefined for one that gets its base later, by {@link KvmGic.placeIts}. */
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

export interface Value {
  readonly status: number;
  readonly value: bigint;
}

const ITS_REGISTERS = ['CTLR', 'IIDR', 'TYPER', 'CBASER', 'CWRITER', 'CREADR', 'BASER0', 'BASER1'] as const;
const GICR_REGISTERS = ['CTLR', 'TYPER', 'PROPBASER', 'PENDBASER'] as const;
/** Of these registers 64 bits count. */
const WIDE: readonly string[] = ['TYPER', 'PROPBASER', 'PENDBASER'];
const WORD = 0xffff_ffffn;

/** MPIDR of a vCPU, as KVM_DEV_ARM_VGIC_GRP_REDIST_REGS wants it. */
const affinityOf = (id: number): bigint =>
  BigInt((id & 0xf) | (((id >>> 4) & 0xff) << 8) | (((id >>> 12) & 0xff) << 16));

/** A VM of the real KVM with a vGICv3 and ITSes, driven by device attributes: no vCPU runs. */
export class KvmGic {
  readonly vm: KvmVm;
  readonly vcpus: readonly KvmVcpu[];
  readonly #gic: KvmDevice;
  readonly #itses: readonly KvmDevice[];
  readonly #value = new NativeBlock(8);
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
    this.#gic = this.vm.createDevice(KVM_DEV_TYPE.ARM_VGIC_V3);
    this.#place(this.#gic, KVM_VGIC_ADDR_TYPE.V3_DIST, spec.gicdBase);
    this.#place(this.#gic, KVM_VGIC_ADDR_TYPE.V3_REDIST, spec.gicrBase);
    this.#itses = spec.itsBases.map(() => this.vm.createDevice(KVM_DEV_TYPE.ARM_VGIC_ITS));
    spec.itsBases.forEach((base, its) => base !== undefined && this.placeIts(its, base));
    for (const device of [this.#gic, ...this.#itses])
      must('VGIC_CTRL_INIT', device.set(KVM_DEV_ARM_VGIC_GRP.CTRL, BigInt(KVM_DEV_ARM_CTRL.VGIC_CTRL_INIT)));
  }

  placeIts(its: number, base: bigint): void {
    this.#place(this.#itses[its]!, KVM_VGIC_ADDR_TYPE.ITS, base);
  }

  setIts(its: number, offset: bigint, value: bigint): number {
    return this.#set(this.#itses[its]!, KVM_DEV_ARM_VGIC_GRP.ITS_REGS, offset, value);
  }

  getIts(its: number, offset: bigint): Value {
    return this.#get(this.#itses[its]!, KVM_DEV_ARM_VGIC_GRP.ITS_REGS, offset);
  }

  /** A redistributor's register: 8 bytes are two accesses, the low half first. */
  setRedistributor(vcpu: number, offset: bigint, value: bigint, size: 4 | 8): number {
    for (let half = 0n; half < BigInt(size); half += 4n) {
      const attribute = this.#redistributor(vcpu, offset + half);
      const bits = (value >> (half * 8n)) & WORD;
      const status = this.#set(this.#gic, KVM_DEV_ARM_VGIC_GRP.REDIST_REGS, attribute, bits);
      if (status !== 0) return status;
    }
    return 0;
  }

  setDistributor(offset: bigint, value: bigint, size: 4 | 8): number {
    for (let half = 0n; half < BigInt(size); half += 4n) {
      const bits = (value >> (half * 8n)) & WORD;
      const status = this.#set(this.#gic, KVM_DEV_ARM_VGIC_GRP.DIST_REGS, offset + half, bits);
      if (status !== 0) return status;
    }
    return 0;
  }

  /** KVM_DEV_ARM_VGIC_GRP_CTRL of an ITS: save, restore, reset, or whatever the number means. */
  itsControl(its: number, attribute: number): number {
    return this.#itses[its]!.set(KVM_DEV_ARM_VGIC_GRP.CTRL, BigInt(attribute));
  }

  savePending(): number {
    const attribute = BigInt(KVM_DEV_ARM_CTRL.VGIC_SAVE_PENDING_TABLES);
    return this.#gic.set(KVM_DEV_ARM_VGIC_GRP.CTRL, attribute);
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
    for (const its of this.#itses.keys())
      for (const name of ITS_REGISTERS)
        all.set(`GITS${its || ''}_${name}`, this.#must(this.getIts(its, BigInt(GITS[name]))));
    for (const vcpu of this.vcpus.keys())
      for (const name of GICR_REGISTERS) {
        const half = (at: number): bigint => this.#must(this.#getRedistributor(vcpu, GICR[name] + at));
        all.set(`GICR${vcpu}_${name}`, half(0) | (WIDE.includes(name) ? half(4) << 32n : 0n));
      }
    all.set('GICD_CTLR', this.#must(this.getDistributor(BigInt(GICD.CTLR))));
    return all;
  }

  getDistributor(offset: bigint): Value {
    const { status, value } = this.#get(this.#gic, KVM_DEV_ARM_VGIC_GRP.DIST_REGS, offset);
    return { status, value: value & WORD };
  }

  close(): void {
    for (const its of this.#itses) its.close();
    this.#gic.close();
    for (const vcpu of this.vcpus) vcpu.close();
    this.vm.close();
    this.#value.free();
    this.#msi.free();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #getRedistributor(vcpu: number, offset: number): Value {
    const attribute = this.#redistributor(vcpu, BigInt(offset));
    const { status, value } = this.#get(this.#gic, KVM_DEV_ARM_VGIC_GRP.REDIST_REGS, attribute);
    return { status, value: value & WORD };
  }

  #redistributor(vcpu: number, offset: bigint): bigint {
    return (affinityOf(this.spec.vcpuIds[vcpu]!) << 32n) | offset;
  }

  #place(device: KvmDevice, type: number, address: bigint): void {
    must('the base address', this.#set(device, KVM_DEV_ARM_VGIC_GRP.ADDR, BigInt(type), address));
  }

  #set(device: KvmDevice, group: number, attribute: bigint, value: bigint): number {
    this.#value.view.setBigUint64(0, value, true);
    return device.set(group, attribute, this.#value.address);
  }

  #get(device: KvmDevice, group: number, attribute: bigint): Value {
    this.#value.view.setBigUint64(0, 0n, true);
    const status = device.get(group, attribute, this.#value.address);
    return { status, value: this.#value.view.getBigUint64(0, true) };
  }

  #must({ status, value }: Value): bigint {
    must('reading a register', status);
    return value;
  }
}

function must(what: string, status: number): void {
  if (status !== 0) throw new Error(`${what}: KVM answers ${status}`);
}
