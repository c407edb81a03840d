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

/** Offsets in the window of the probe vCPU: page tables, code, and the page under test. */
const AT = { pml4: 0x0000, pdpt: 0x1000, pd: 0x2000, code: 0x3000, tested: 0x10_000 } as const;
const OWN_BYTES = 0x4000;
const WINDOW_BYTES = 0x20_0000;
/** mov al, [0x10000]; out 0x80, al */
const CODE = [0x8a, 0x04, 0x25, 0x00, 0x00, 0x01, 0x00, 0xe6, 0x80];
const USER_TABLE = 7n;
const USER_PAGE_2M = 0x87n;
/**
 * Errors of a system call filter, and of KVM where it can have no memory, or no thread of its own, which it creates when
 * a VM runs first; no guest access ends with them.
 */
const REFUSED: readonly number[] = [ERRNO.EPERM, ERRNO.EACCES, ERRNO.ENOSYS, ERRNO.EAGAIN, ERRNO.ENOMEM];
const KVM_SET_MP_STATE = 0x4004_ae99;
const RUNNABLE = 0;
/** Bytes of the file that the slot under test is bound to. */
export const TESTED_BYTES = 4096;
/** Windows and vCPU ids tried when the first is taken. */
const TRIES = 16;
/** A forked process holds the file until its execve(2): usually for less than this. */
const GRACE_MS = 50;
const CHECK_EVERY_MS = 2;

/** The parts of the VM that the verification uses. */
export interface VerificationPlace {
  /** The first of two memslot numbers that nothing else uses. */
  readonly slot: number;
  /** A window of 2 MiB in which the guest has no memory; the next windows are tried if it has. */
  readonly gpa: number;
  /** vcpu_id of the probe vCPU, which stays in the VM, stopped. */
  readonly vcpuId: number;
}

/**
 * Verifies that a slot is vacated, by a guest access of a vCPU of its own, the probe vCPU. Whether a process
 * still holds the file cannot be seen from outside, and a guest access that finds the file open reads zeros.
 *
 * {@link bindSlot} while the file is open, {@link check} after it was closed. x86-64.
 */
export class SlotVerification {
  readonly #vm: KvmVm;
  readonly #place: VerificationPlace;
  readonly #memory = mapMemory({ kind: 'anonymous', length: OWN_BYTES });
  /** Never notified: a wait on it is a delay. */
  readonly #never = new Int32Array(new SharedArrayBuffer(4));
  #vcpu: KvmVcpu | undefined;
  #gpa = -1;
  /** Numbers of the memslots that exist now. */
  readonly #slots = new Set<number>();

  constructor(vm: KvmVm, place: VerificationPlace) {
    this.#vm = vm;
    this.#place = place;
  }

  /** Binds a slot to the page at `offset` of the file. Errors: BAD_RANGE where no window is free. */
  bindSlot(file: number, offset: number): void {
    this.#gpa = this.#findWindow();
    const tested = {
      slot: this.#place.slot + 1,
      gpa: this.#gpa + AT.tested,
      length: TESTED_BYTES,
      userspace: this.#memory.address,
      guestMemfd: file,
      guestMemfdOffset: offset,
    };
    const result = this.#setOwn(tested);
    if (result === 0) return;
    const refused = refusedSlot(this.#vm, tested, -result);
    this.#removeSlots();
    throw refused;
  }

  #setOwn(slot: KvmSlot): number {
    const result = this.#vm.trySetSlot(slot);
    if (result === 0) this.#slots.add(slot.slot);
    return result;
  }

  /**
   * Accesses the slot under test. Returns undefined if the file is gone, else how the access ended. Blocks:
   * for at most {@link GRACE_MS} while a process holds the file.
   */
  check(): string | undefined {
    const deadline = performance.now() + GRACE_MS;
    try {
      for (;;) {
        const found = this.#access();
        if (found === undefined || performance.now() >= deadline) return found;
        Atomics.wait(this.#never, 0, 0, CHECK_EVERY_MS);
      }
    } finally {
      this.#removeSlots();
    }
  }

  /** Deletes only the memslots created here: a number that KVM refused may be the VMM's. */
  #removeSlots(): void {
    for (const slot of this.#slots) this.#vm.trySetSlot({ slot, gpa: 0, length: 0, userspace: 0 });
    this.#slots.clear();
  }

  /** How an access ended; undefined for the expected exit. */
  #access(): string | undefined {
    const vcpu = (this.#vcpu ??= this.#makeVcpu());
    this.#prepare(vcpu);
    const errno = -vcpu.enter();
    if (REFUSED.includes(errno)) throw systemError('ioctl KVM_RUN', errno, 'the probe vCPU cannot be run');
    const exit = vcpu.run.exit();
    if (errno === ERRNO.EFAULT && exit.kind === 'memory-fault' && exit.gpa === this.#gpa + AT.tested)
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
    throw new DemandPagingError(
      'BAD_RANGE',
      `slot verification found no free guest-physical window from ${hex(gpa)}`,
      {
        hint: 'Set verifySlots.gpa to an unused 2 MiB of guest-physical space',
      },
    );
  }

  #makeVcpu(): KvmVcpu {
    const vcpu = this.#createVcpu();
    using state = new NativeBlock(4);
    state.words[0] = RUNNABLE;
    // Refused if the VM has no such state: then the vCPU is runnable.
    raw.ioctl(vcpu.fd, KVM_SET_MP_STATE, state.address);
    return vcpu;
  }

  /**
   * A vCPU lives as long as its VM: if an earlier attachment's probe vCPU has the id, the next lower id is
   * used.
   */
  #createVcpu(): KvmVcpu {
    const { vcpuId } = this.#place;
    for (let id = vcpuId; ; id--) {
      try {
        return this.#vm.createVcpu(id);
      } catch (cause) {
        const taken = cause instanceof DemandPagingError && cause.errno === ERRNO.EEXIST;
        if (taken && id > 0 && vcpuId - id < TRIES) continue;
        throw new DemandPagingError('NOT_SUPPORTED', `slot verification cannot create vCPU ${id}`, {
          cause,
          hint: `Set verifySlots.vcpuId to an unused vcpu_id; this VM takes ${this.#vm.check(KVM_CAP.MAX_VCPUS)} vCPUs`,
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
