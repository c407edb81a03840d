import { DemandPagingError } from '../api/error.js';
import { type GicCommand, type GicRegister, type RestoreAction, type SaveAction } from '../arm64/index.js';
import {
  ERRNO,
  type ErrnoName,
  KVM_DEV_ARM_CTRL,
  KVM_DEV_ARM_VGIC_GRP,
  KVM_DEV_ARM_VGIC_SHIFT,
  KVM_DEV_TYPE,
  KVM_VGIC_ADDR_TYPE,
  type KvmDevice,
  type KvmVm,
  systemError,
  VGIC_LEVEL_INFO_LINE_LEVEL,
  vgicAttribute,
} from '../linux/index.js';
import { commandName, registerName } from './gic-names.js';

/** A stretch of the guest's addresses for `count` redistributors, 128 KiB each. */
export interface RedistributorRegion {
  readonly base: bigint;
  readonly count: number;
}

/** The GIC that a VM is to have. Bases are guest-physical and multiples of 64 KiB. */
export interface KvmGicSpec {
  readonly distributor: bigint;
  /** Of all vCPUs from one base on, or of regions, which are filled in order of vCPU creation. */
  readonly redistributors: bigint | readonly RedistributorRegion[];
  /** The base of each ITS, or undefined where the restore is to place it. */
  readonly itses: readonly (bigint | undefined)[];
  /** How many interrupts there are besides LPIs: 64 to 992 by 32. Default: KVM's own, 256. */
  readonly nrIrqs?: number | undefined;
}

export interface KvmGicOptions {
  /**
   * Carries out each ioctl. If a KVM backend pages the VM: `during` of an exit handler of this thread, so
   * that no memslot changes under an ioctl that accesses guest memory. Default: calls it.
   */
  readonly during?: (<T>(body: () => T) => T) | undefined;
}

/** What an ioctl said: 0 or `-errno`, and the register's value. */
export interface GicAnswer {
  readonly status: number;
  readonly value: bigint;
}

const GROUP = KVM_DEV_ARM_VGIC_GRP;
const CTRL = KVM_DEV_ARM_CTRL;
const WORD = 0xffff_ffffn;
const GICR_TYPER = 0x8;

/**
 * The vGICv3 of a VM and its ITSes, as device descriptors: what gets and sets their state and carries out
 * their commands. {@link restoreIssuer} is what `beginRestore` of `demand-paging/arm64` issues to, {@link
 * saveIssuer} what `saveVgic` does.
 *
 * Blocks: the calling thread, event loop included, in ioctls; those that touch guest memory wait for each
 * missing page, with the VM's locks held. So the pages have to come from another thread (a pager whose
 * resolver has its own, which is the default), or be there: see `planRestore`.
 * Requires: arm64 KVM with a GICv3. Source: arm-vgic-v3.rst, arm-vgic-its.rst.
 */
export class KvmGic implements Disposable {
  readonly #during: <T>(body: () => T) => T;
  /** vCPUs of which MPIDR_EL1 was seen to name the vCPU that was meant. */
  readonly #named = new Map<bigint, number>();

  /**
   * Over devices that this takes over; `KvmDevice.borrow` makes one of a descriptor that stays the caller's.
   */
  constructor(
    readonly gic: KvmDevice,
    readonly itses: readonly KvmDevice[],
    options: KvmGicOptions = {},
  ) {
    this.#during = options.during ?? ((body) => body());
  }

  /**
   * Creates a GIC and its ITSes, places and initialises them: all ITSes, before a register of any is set,
   * since creating one resets GICR_PROPBASER of the whole VM.
   *
   * Preconditions: every vCPU is created, with the MPIDR_EL1 that it shall have; none has run.
   * Errors: NOT_SUPPORTED (ENODEV: no GICv3), KERNEL (EINVAL, E2BIG: a base; EEXIST: the VM has a GIC).
   * Nothing is left open then; the VM keeps what was created.
   */
  static create(vm: Pick<KvmVm, 'createDevice'>, spec: KvmGicSpec, options: KvmGicOptions = {}): KvmGic {
    const devices: KvmDevice[] = [];
    const add = (type: number): KvmDevice => {
      const device = vm.createDevice(type);
      devices.push(device);
      return device;
    };
    try {
      const gic = add(KVM_DEV_TYPE.ARM_VGIC_V3);
      const made = new KvmGic(
        gic,
        spec.itses.map(() => add(KVM_DEV_TYPE.ARM_VGIC_ITS)),
        options,
      );
      made.#initialise(spec);
      return made;
    } catch (error) {
      for (const device of devices) device.close();
      throw error;
    }
  }

  #initialise({ distributor, redistributors, itses, nrIrqs }: KvmGicSpec): void {
    const { gic } = this;
    const set = (group: number, attribute: number, value: bigint, what: string): void =>
      this.#must(gic.setValue(group, BigInt(attribute), value), what, 'set');
    if (nrIrqs !== undefined) set(GROUP.NR_IRQS, 0, BigInt(nrIrqs), 'NR_IRQS');
    set(GROUP.ADDR, KVM_VGIC_ADDR_TYPE.V3_DIST, distributor, "the distributor's base");
    if (typeof redistributors === 'bigint')
      set(GROUP.ADDR, KVM_VGIC_ADDR_TYPE.V3_REDIST, redistributors, "the redistributors' base");
    else
      redistributors.forEach(({ base, count }, index) => {
        const region = (BigInt(count) << 52n) | base | BigInt(index);
        set(GROUP.ADDR, KVM_VGIC_ADDR_TYPE.V3_REDIST_REGION, region, `redistributor region ${index}`);
      });
    itses.forEach((base, its) => {
      if (base !== undefined) this.restoreIssuer({ device: 'its', its, group: 'ADDR', value: base, size: 8 });
    });
    this.#command({ device: 'gic', group: 'CTRL', attribute: CTRL.VGIC_CTRL_INIT });
    for (const its of itses.keys())
      this.#command({ device: 'its', its, group: 'CTRL', attribute: CTRL.VGIC_CTRL_INIT });
  }

  /**
   * Carries a step of a restore out. A register of 8 bytes of the GIC's is set as two u32, the low half
   * first; one of an ITS as a u64, whatever it has. NR_IRQS is compared, not set; an ITS that is at its base
   * already stays there.
   *
   * Errors, with the errno and the register's name: KERNEL (EBUSY: a vCPU is in KVM_RUN, or the GIC is not
   * initialised; EINVAL: no vCPU has that MPIDR, or KVM cannot be what was saved; EFAULT, EINVAL of
   * RESTORE_TABLES: the tables), NOT_SUPPORTED (another number of interrupts; ENXIO: no such register; an
   * MPIDR that is another vCPU's).
   */
  readonly restoreIssuer = (action: RestoreAction): void => {
    if (action.group === 'CTRL') return this.#command(action);
    if (action.group === 'NR_IRQS') return this.#compareInterrupts(Number(action.value));
    if ('mpidr' in action) this.#checkName(action);
    const status = this.trySet(action, action.value);
    if (status === -ERRNO.EEXIST && action.group === 'ADDR' && this.tryGet(action).value === action.value)
      return;
    this.#must(status, registerName(action), 'set');
  };

  /**
   * Carries a step of a save out. Errors: as {@link restoreIssuer}; NOT_SUPPORTED (EACCES: a GICv4 holds the
   * LPIs' state).
   */
  readonly saveIssuer = (action: SaveAction): bigint => {
    if (action.group === 'CTRL') {
      this.#command(action);
      return 0n;
    }
    if ('mpidr' in action) this.#checkName(action);
    const { status, value } = this.tryGet(action);
    this.#must(status, registerName(action), 'get');
    return value;
  };

  /** Sets a register: 0 or `-errno`. Of two halves the second is not set if the first is refused. */
  trySet(register: GicRegister, value: bigint): number {
    for (const half of this.#halves(register)) {
      const bits = half.bytes === 4 ? (value >> half.shift) & WORD : value;
      const status = this.#during(() => half.device.setValue(half.group, half.attribute, bits));
      if (status !== 0) return status;
    }
    return 0;
  }

  /** Gets a register. */
  tryGet(register: GicRegister): GicAnswer {
    let value = 0n;
    for (const half of this.#halves(register)) {
      const answer = this.#during(() => half.device.getValue(half.group, half.attribute));
      if (answer.status !== 0) return answer;
      value |= half.bytes === 4 ? (answer.value & WORD) << half.shift : answer.value;
    }
    return { status: 0, value };
  }

  /** KVM_DEV_ARM_VGIC_GRP_CTRL: 0 or `-errno`. A command that touches guest memory waits for its pages. */
  tryCommand({ attribute, ...command }: GicCommand): number {
    const device = command.device === 'gic' ? this.gic : this.#its(command.its);
    return this.#during(() => device.set(GROUP.CTRL, BigInt(attribute)));
  }

  /** Closes the devices' descriptors. The VM keeps its GIC. */
  close(): void {
    for (const its of this.itses) its.close();
    this.gic.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /** The accesses of KVM's that a register is: its attribute, and what of the value belongs there. */
  #halves(register: GicRegister): readonly Half[] {
    const { gic } = this;
    switch (register.group) {
      case 'ADDR':
        return [wide(this.#its(register.its), GROUP.ADDR, BigInt(KVM_VGIC_ADDR_TYPE.ITS))];
      case 'ITS_REGS':
        return [wide(this.#its(register.its), GROUP.ITS_REGS, BigInt(register.offset))];
      case 'CPU_SYSREGS':
        return [wide(gic, GROUP.CPU_SYSREGS, vgicAttribute(register.mpidr, register.register))];
      case 'NR_IRQS':
        return [narrow(gic, GROUP.NR_IRQS, 0n, 0)];
      case 'LEVEL_INFO': {
        const info = VGIC_LEVEL_INFO_LINE_LEVEL << KVM_DEV_ARM_VGIC_SHIFT.LINE_LEVEL_INFO;
        return [narrow(gic, GROUP.LEVEL_INFO, vgicAttribute(register.mpidr, info | register.intid), 0)];
      }
      case 'DIST_REGS':
      case 'REDIST_REGS': {
        const mpidr = register.group === 'REDIST_REGS' ? register.mpidr : 0n;
        const at = (half: number): Half =>
          narrow(gic, GROUP[register.group], vgicAttribute(mpidr, register.offset + half * 4), half * 32);
        return register.size === 4 ? [at(0)] : [at(0), at(1)];
      }
      default:
        return register satisfies never;
    }
  }

  #its(index: number): KvmDevice {
    const its = this.itses[index];
    if (its === undefined)
      throw new RangeError(`there are ${this.itses.length} ITSes, so none is number ${index}`);
    return its;
  }

  #command(command: GicCommand): void {
    this.#must(this.tryCommand(command), commandName(command), 'carry out');
  }

  #compareInterrupts(saved: number): void {
    const { status, value } = this.tryGet({ device: 'gic', group: 'NR_IRQS', size: 4 });
    this.#must(status, 'NR_IRQS', 'get');
    if (Number(value) === saved) return;
    throw new DemandPagingError(
      'NOT_SUPPORTED',
      `the GIC that was saved has ${saved} interrupts, this one ${value}`,
      {
        hint: `Create it with nrIrqs: ${saved}; KVM ignores what is set of interrupts that a GIC has not`,
      },
    );
  }

  /**
   * Once a vCPU: that the redistributor its MPIDR names is its own, and not that of a vCPU which was given
   * that MPIDR.
   */
  #checkName({ vcpuId, mpidr }: { readonly vcpuId: number; readonly mpidr: bigint }): void {
    if (this.#named.get(mpidr) === vcpuId) return;
    const typer = {
      device: 'gic',
      group: 'REDIST_REGS',
      vcpuId,
      mpidr,
      offset: GICR_TYPER,
      size: 4,
    } as const;
    const { status, value } = this.tryGet(typer);
    this.#must(status, registerName(typer), 'get');
    const owner = Number((value >> 8n) & 0xffffn);
    if (owner !== (vcpuId & 0xffff))
      throw new DemandPagingError(
        'NOT_SUPPORTED',
        `MPIDR_EL1 0x${mpidr.toString(16)} of vCPU ${vcpuId} is that of vCPU ${owner} here`,
        { hint: 'Give each vCPU the MPIDR_EL1 that it had, before the GIC is created' },
      );
    this.#named.set(mpidr, vcpuId);
  }

  #must(status: number, what: string, verb: string): void {
    if (status >= 0) return;
    throw systemError(
      `ioctl ${verb === 'get' ? 'KVM_GET_DEVICE_ATTR' : 'KVM_SET_DEVICE_ATTR'}`,
      -status,
      `KVM does not ${verb} ${what}`,
      {
        codes: { [ERRNO.ENXIO]: 'NOT_SUPPORTED', [ERRNO.EACCES]: 'NOT_SUPPORTED' },
        hint: hintFor(-status, what),
      },
    );
  }
}

/** One access of KVM's. */
interface Half {
  readonly device: KvmDevice;
  readonly group: number;
  readonly attribute: bigint;
  readonly bytes: 4 | 8;
  /** Where in the register the 4 bytes are. */
  readonly shift: bigint;
}

const wide = (device: KvmDevice, group: number, attribute: bigint): Half => ({
  device,
  group,
  attribute,
  bytes: 8,
  shift: 0n,
});

const narrow = (device: KvmDevice, group: number, attribute: bigint, shift: number): Half => ({
  device,
  group,
  attribute,
  bytes: 4,
  shift: BigInt(shift),
});

const HINTS: Readonly<Partial<Record<ErrnoName, string>>> = {
  EBUSY: 'A vCPU is in KVM_RUN, or the GIC is not initialised: take every vCPU out, and see CTRL_INIT',
  EACCES:
    'The LPIs are forwarded by a GICv4, which has no way to tell their state: save on a host without, or with GICv4.1',
  ENXIO: 'This kernel has no such register or command, or the ITS has no base yet',
};

/** By errno: what to do about a failure of a command that walks guest memory. */
const TABLE_HINTS: Readonly<Partial<Record<ErrnoName, string>>> = {
  ...HINTS,
  EFAULT:
    'A table lies outside the memslots, or its page is unavailable. The restore has already consumed pending bits: do not repeat it, restore a new VM',
  EINVAL: 'The tables in guest memory do not fit the registers or the vCPUs: see `dumpImage` and `its dump`',
  EEXIST: 'The ITS has collections or devices already: tables are restored once, or after ITS_CTRL_RESET',
};

function hintFor(errno: number, what: string): string | undefined {
  const hints = what.includes('TABLES') ? TABLE_HINTS : HINTS;
  if (errno === ERRNO.EINVAL && what.includes('of vCPU'))
    return 'No vCPU of this VM has that MPIDR_EL1, or the host cannot do what was saved';
  return Object.entries(hints).find(([name]) => ERRNO[name as ErrnoName] === errno)?.[1];
}
