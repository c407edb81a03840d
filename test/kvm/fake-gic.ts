import { affinityOf } from '../../src/arm64/index.js';
import {
  ERRNO,
  KVM,
  KVM_DEV_ARM_CTRL,
  KVM_DEV_ARM_VGIC_GRP,
  KVM_DEV_TYPE,
  KVM_VGIC_ADDR_TYPE,
  KvmDevice,
  libc,
  systemError,
} from '../../src/linux/index.js';

const GROUP = KVM_DEV_ARM_VGIC_GRP;
/** Groups whose data is a u32; of the others it is a u64. */
const NARROW: readonly number[] = [GROUP.DIST_REGS, GROUP.REDIST_REGS, GROUP.LEVEL_INFO, GROUP.NR_IRQS];
const REGISTERS: readonly number[] = [
  GROUP.DIST_REGS,
  GROUP.REDIST_REGS,
  GROUP.LEVEL_INFO,
  GROUP.CPU_SYSREGS,
];
const DEFAULT_INTERRUPTS = 256;

interface Access {
  readonly device: 'gic' | 'its';
  readonly group: number;
  readonly attribute: bigint;
  /** Undefined for a get. */
  readonly value: bigint | undefined;
}

/**
 * KVM's vGIC and its ITSes as far as a VMM's saves and restores see them, behind the ioctl function of a
 * {@link KvmDevice}: what is an u32 and what a u64, who is named by an MPIDR, which registers set and clear
 * bits of others. Written from the kernel's documents, arm-vgic-v3.rst and arm-vgic-its.rst, and
 * vgic-kvm-device.c.
 */
export class FakeGic {
  /** Every access, in order. */
  readonly log: Access[] = [];
  readonly created: number[] = [];
  /** What the next command answers. */
  commandStatus = 0;
  vcpuRuns = false;
  open = 0;
  /** An errno for the access that has this place in the log. */
  failAt: readonly [place: number, errno: number] | undefined;
  readonly #values = new Map<string, bigint>();
  readonly #vcpus: ReadonlyMap<bigint, number>;
  #interrupts = DEFAULT_INTERRUPTS;
  #initialised = false;

  constructor(vcpus: readonly { readonly vcpuId: number; readonly mpidr?: bigint }[]) {
    this.#vcpus = new Map(
      vcpus.map(({ vcpuId, mpidr }) => {
        const register = mpidr ?? BigInt(affinityOf(vcpuId));
        return [((register >> 8n) & 0xff00_0000n) | (register & 0xff_ffffn), vcpuId];
      }),
    );
  }

  /** KVM_CREATE_DEVICE. */
  createDevice(type: number): KvmDevice {
    const status = this.#fails();
    if (status !== 0) throw systemError('ioctl KVM_CREATE_DEVICE', -status, 'refused');
    this.created.push(type);
    const number = this.created.length;
    if (type === KVM_DEV_TYPE.ARM_VGIC_ITS) this.#values.set('propbaser', 0x580n);
    this.open++;
    const device = new KvmDevice(number, this.ioctl, false);
    const close = device.close.bind(device);
    device.close = (): void => {
      this.open--;
      close();
    };
    return device;
  }

  /** Each bit is set of what a register holds, as by a guest that ran here before. */
  fill(register: bigint, group: number): void {
    this.#values.set(`1 ${group} ${register}`, 0xffff_ffffn);
  }

  readonly ioctl = (fd: number, request: number, argument: number): number => {
    const attribute = new DataView(libc().view(argument, 24));
    const address = Number(attribute.getBigUint64(16, true));
    const set = request === KVM.SET_DEVICE_ATTR;
    const group = attribute.getUint32(4, true);
    const data =
      address === 0 ? undefined : new DataView(libc().view(address, NARROW.includes(group) ? 4 : 8));
    const read = (): bigint =>
      data === undefined
        ? 0n
        : data.byteLength === 4
          ? BigInt(data.getUint32(0, true))
          : data.getBigUint64(0, true);
    const access: Access = {
      device: fd === 1 ? 'gic' : 'its',
      group,
      attribute: attribute.getBigUint64(8, true),
      value: set ? read() : undefined,
    };
    this.log.push(access);
    const failure = this.#fails();
    if (failure !== 0) return failure;
    const answer = this.#access(fd, access);
    if (typeof answer === 'number') return answer;
    if (data?.byteLength === 4) data.setUint32(0, Number(answer & 0xffff_ffffn), true);
    else data?.setBigUint64(0, answer, true);
    return 0;
  };

  #fails(): number {
    const [place, errno] = this.failAt ?? [];
    return place === this.log.length + this.created.length ? -errno! : 0;
  }

  /** A value for a get, or 0 or `-errno`. */
  #access(fd: number, { device, group, attribute, value }: Access): number | bigint {
    if (group === GROUP.CTRL) return this.#command(device, Number(attribute));
    if (group === GROUP.NR_IRQS) {
      if (value === undefined) return BigInt(this.#interrupts);
      if (this.#initialised) return -ERRNO.EBUSY;
      this.#interrupts = Number(value);
      return 0;
    }
    const key = `${fd} ${group} ${attribute}`;
    if (group === GROUP.ADDR) {
      const taken = this.#values.get(key);
      if (value === undefined) return taken ?? 0xffff_ffff_ffff_ffffn;
      if (taken !== undefined && attribute !== BigInt(KVM_VGIC_ADDR_TYPE.V3_REDIST_REGION))
        return -ERRNO.EEXIST;
      return this.#store(key, value);
    }
    if (this.vcpuRuns) return -ERRNO.EBUSY;
    if (device === 'its') {
      if (!this.#values.has(`${fd} ${GROUP.ADDR} ${KVM_VGIC_ADDR_TYPE.ITS}`)) return -ERRNO.ENXIO;
      return this.#plain(key, value);
    }
    return this.#register(group, attribute, value);
  }

  #register(group: number, attribute: bigint, value: bigint | undefined): number | bigint {
    if (!REGISTERS.includes(group)) return -ERRNO.ENXIO;
    const affinity = attribute >> 32n;
    const vcpu = this.#vcpus.get(affinity);
    if (group !== GROUP.DIST_REGS && vcpu === undefined) return -ERRNO.EINVAL;
    if (!this.#initialised) return -ERRNO.EBUSY;
    const offset = attribute & 0xffff_ffffn;
    if (group === GROUP.REDIST_REGS) {
      if (offset === 8n) return value === undefined ? BigInt((vcpu! << 8) | 1) : 0;
      if (offset === 0x70n || offset === 0x74n) return this.#plain(`propbaser ${offset}`, value);
    }
    const own = group === GROUP.LEVEL_INFO && offset >= 32n ? offset : attribute;
    const state = (at: bigint): string => `1 ${group} ${at}`;
    const frame = group === GROUP.REDIST_REGS ? offset - 0x1_0000n : offset;
    const bank = group === GROUP.DIST_REGS || group === GROUP.REDIST_REGS ? frame >> 7n : -1n;
    if (bank === 0x100n >> 7n || bank === 0x300n >> 7n) {
      const before = this.#values.get(state(own)) ?? 0n;
      return value === undefined ? before : this.#store(state(own), before | value);
    }
    if (value !== undefined && (bank === 0x180n >> 7n || bank === 0x380n >> 7n)) {
      const before = this.#values.get(state(own - 0x80n)) ?? 0n;
      return this.#store(state(own - 0x80n), before & ~value);
    }
    return this.#plain(state(own), value);
  }

  #command(device: 'gic' | 'its', attribute: number): number {
    if (attribute === KVM_DEV_ARM_CTRL.VGIC_CTRL_INIT) {
      if (device === 'gic') this.#initialised = true;
      return 0;
    }
    return this.vcpuRuns ? -ERRNO.EBUSY : this.commandStatus;
  }

  #plain(key: string, value: bigint | undefined): number | bigint {
    return value === undefined ? (this.#values.get(key) ?? 0n) : this.#store(key, value);
  }

  #store(key: string, value: bigint): number {
    this.#values.set(key, value);
    return 0;
  }
}
