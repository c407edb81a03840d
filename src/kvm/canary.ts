import { hex } from '../api/address.js';
import { DemandPagingError } from '../api/error.js';
import {
  ERRNO,
  KVM_CAP,
  type KvmExit,
  type KvmSlot,
  type KvmVcpu,
  type KvmVm,
  mapMemory,
  NativeBlock,
  raw,
  systemError,
  X86_LONG_MODE_CPUID,
  X86_USER_FLAGS,
  x86UserMode,
} from '../linux/index.js';
import { refusedSlot } from './refused-slot.js';

/** Where in its window the canary keeps what: page tables, code, and the page under test. */
const AT = { pml4: 0x0000, pdpt: 0x1000, pd: 0x2000, code: 0x3000, bait: 0x10_000 } as const;
const OWN_BYTES = 0x4000;
const WINDOW_BYTES = 0x20_0000;
/** mov al, [0x10000]; out 0x80, al */
const CODE = [0x8a, 0x04, 0x25, 0x00, 0x00, 0x01, 0x00, 0xe6, 0x80];
const USER_TABLE = 7n;
const USER_PAGE_2M = 0x87n;
/** What a filter says, and no access of a guest's. */
const REFUSED: readonly number[] = [ERRNO.EPERM, ERRNO.EACCES, ERRNO.ENOSYS];
const KVM_SET_MP_STATE = 0x4004_ae99;
const RUNNABLE = 0;
/** Of the file, for the slot that is looked at. */
export const BAIT_BYTES = 4096;
/** Windows and vCPU ids tried when the first is taken. */
const TRIES = 16;
/** A process that is being started holds the file until it executes its program: mostly for less than this. */
const GRACE_MS = 50;
const LOOK_EVERY_MS = 2;

/** What the canary needs to be set free. */
export interface CanaryPlace {
  /** Two slots that nothing else uses. */
  readonly slot: number;
  /** A window of 2 MiB in which the guest has nothing; the next ones are tried if it has. */
  readonly gpa: number;
  /** vcpu_id of a vCPU of its own, which stays in the VM, stopped. */
  readonly vcpuId: number;
}

/**
 * A guest access to a slot that ought to be vacated, by a vCPU of our own: that nobody holds the file
 * any more cannot be seen from outside, and a guest that finds a file still there reads zeros.
 *
 * {@link setBait} while the file is open, {@link look} after it was closed. x86-64.
 */
export class Canary {
  readonly #vm: KvmVm;
  readonly #place: CanaryPlace;
  readonly #memory = mapMemory({ kind: 'anonymous', length: OWN_BYTES });
  /** Nobody notifies: waiting for it is a pause. */
  readonly #never = new Int32Array(new SharedArrayBuffer(4));
  #vcpu: KvmVcpu | undefined;
  #gpa = -1;
  /** Numbers of the slots that exist now. */
  readonly #slots = new Set<number>();

  constructor(vm: KvmVm, place: CanaryPlace) {
    this.#vm = vm;
    this.#place = place;
  }

  /** Binds a slot to the page at `offset` of the file. Errors: BAD_RANGE where no window is free. */
  setBait(file: number, offset: number): void {
    this.#gpa = this.#findWindow();
    const bait = {
      slot: this.#place.slot + 1,
      gpa: this.#gpa + AT.bait,
      length: BAIT_BYTES,
      userspace: this.#memory.address,
      guestMemfd: file,
      guestMemfdOffset: offset,
    };
    const result = this.#setOwn(bait);
    if (result === 0) return;
    const refused = refusedSlot(this.#vm, bait, -result);
    this.#removeSlots();
    throw refused;
  }

  #setOwn(slot: KvmSlot): number {
    const result = this.#vm.trySetSlot(slot);
    if (result === 0) this.#slots.add(slot.slot);
    return result;
  }

  /**
   * How an access ended that found the file all the same; undefined where it is gone. Blocks: for a moment while
   * somebody holds it.
   */
  look(): string | undefined {
    const deadline = performance.now() + GRACE_MS;
    try {
      for (;;) {
        const found = this.#access();
        if (found === undefined || performance.now() >= deadline) return found;
        Atomics.wait(this.#never, 0, 0, LOOK_EVERY_MS);
      }
    } finally {
      this.#removeSlots();
    }
  }

  /** Those made here only: a number that was refused may be the VMM's. */
  #removeSlots(): void {
    for (const slot of this.#slots) this.#vm.trySetSlot({ slot, gpa: 0, length: 0, userspace: 0 });
    this.#slots.clear();
  }

  /** How an access ended, unless by the exit that it ought to. */
  #access(): string | undefined {
    const vcpu = (this.#vcpu ??= this.#makeVcpu());
    this.#prepare(vcpu);
    const errno = -vcpu.enter();
    if (REFUSED.includes(errno)) throw systemError('ioctl KVM_RUN', errno, 'the canary cannot be run');
    const exit = vcpu.run.exit();
    if (errno === ERRNO.EFAULT && exit.kind === 'memory-fault' && exit.gpa === this.#gpa + AT.bait)
      return undefined;
    return describe(errno, exit);
  }

  close(): void {
    this.#vcpu?.close();
    this.#memory.dispose();
  }

  #findWindow(): number {
    const { slot, gpa } = this.#place;
    for (let attempt = 0; attempt < TRIES; attempt++) {
      const at = gpa + attempt * WINDOW_BYTES;
      const window = { slot, gpa: at, length: OWN_BYTES, userspace: this.#memory.address };
      const result = this.#setOwn(window);
      if (result === 0) return at;
      if (result !== -ERRNO.EEXIST) throw refusedSlot(this.#vm, window, -result);
    }
    throw new DemandPagingError('BAD_RANGE', `no room for the canary at ${hex(gpa)}`, {
      hint: 'Give canary.gpa an unused 2 MiB of guest-physical space',
    });
  }

  #makeVcpu(): KvmVcpu {
    const vcpu = this.#createVcpu();
    using state = new NativeBlock(4);
    state.words[0] = RUNNABLE;
    raw.ioctl(vcpu.fd, KVM_SET_MP_STATE, state.address); // refused where there is no such state: then it is runnable
    return vcpu;
  }

  /** A vCPU lives as long as its VM: one of an earlier attachment has the id, and the next lower is taken. */
  #createVcpu(): KvmVcpu {
    const { vcpuId } = this.#place;
    for (let id = vcpuId; ; id--) {
      try {
        return this.#vm.createVcpu(id);
      } catch (cause) {
        const taken = cause instanceof DemandPagingError && cause.errno === ERRNO.EEXIST;
        if (taken && id > 0 && vcpuId - id < TRIES) continue;
        throw new DemandPagingError('NOT_SUPPORTED', `no vCPU ${id} for the canary`, {
          cause,
          hint: `Give canary.vcpuId an unused vcpu_id; this VM takes ${this.#vm.check(KVM_CAP.MAX_VCPUS)} vCPUs`,
        });
      }
    }
  }

  #prepare(vcpu: KvmVcpu): void {
    const bytes = this.#memory.bytes();
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const base = BigInt(this.#gpa);
    view.setBigUint64(AT.pml4, base + BigInt(AT.pdpt) + USER_TABLE, true);
    view.setBigUint64(AT.pdpt, base + BigInt(AT.pd) + USER_TABLE, true);
    view.setBigUint64(AT.pd, base + USER_PAGE_2M, true);
    bytes.set(CODE, AT.code);
    vcpu.setCpuid(X86_LONG_MODE_CPUID);
    vcpu.setSpecialRegisters(x86UserMode(this.#gpa + AT.pml4));
    vcpu.setRegisters({ rip: BigInt(AT.code), rflags: X86_USER_FLAGS, rsp: 0n });
  }
}

const describe = (errno: number, exit: KvmExit): string => `errno ${errno}, exit ${exit.kind}`;
