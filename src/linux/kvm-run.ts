import { kvmExitName, KVM_EXIT } from './kvm-abi.js';
import { load64 } from './native-block.js';

/** Offsets into `struct kvm_run`; the union of exits starts at 32. */
export const KVM_RUN_OFFSET = {
  request_interrupt_window: 0,
  immediate_exit: 1,
  exit_reason: 8,
  flags: 14,
  exit: 32,
  io_direction: 32,
  io_size: 33,
  io_port: 34,
  io_count: 36,
  io_data_offset: 40,
  mmio_phys_addr: 32,
  mmio_data: 40,
  mmio_len: 48,
  mmio_is_write: 52,
  internal_suberror: 32,
  internal_ndata: 36,
  internal_data: 40,
  fail_entry_reason: 32,
  fail_entry_cpu: 40,
  system_event_type: 32,
  system_event_ndata: 36,
  system_event_data: 40,
  arm_nisv_esr_iss: 32,
  arm_nisv_fault_ipa: 40,
  memory_fault_flags: 32,
  memory_fault_gpa: 40,
  memory_fault_size: 48,
  arm_sea_flags: 32,
  arm_sea_esr: 40,
  arm_sea_gva: 48,
  arm_sea_gpa: 56,
} as const;

/** Bytes of `struct kvm_run` up to the end of the union of exits. */
export const KVM_RUN_HEAD_BYTES = 288;

const AT = KVM_RUN_OFFSET;

/** Why KVM_RUN returned. Guest-physical addresses are exact numbers (below 2^52). */
export type KvmExit =
  /** The `count` accesses of `size` bytes each are in `kvm_run` at `dataOffset`. */
  | {
      readonly kind: 'io';
      readonly write: boolean;
      readonly size: number;
      readonly port: number;
      readonly count: number;
      readonly dataOffset: number;
    }
  /** A GFN in no memslot. For a read put the answer with {@link KvmRun.answerMmio}. `data` is a copy. */
  | { readonly kind: 'mmio'; readonly gpa: number; readonly write: boolean; readonly data: Uint8Array }
  /** The page at `gpa` is unavailable; the ioctl returned -EFAULT or -EHWPOISON. */
  | { readonly kind: 'memory-fault'; readonly gpa: number; readonly size: number; readonly flags: number }
  | { readonly kind: 'internal-error'; readonly suberror: number; readonly data: readonly bigint[] }
  | { readonly kind: 'fail-entry'; readonly reason: bigint; readonly cpu: number }
  | { readonly kind: 'system-event'; readonly type: number; readonly data: readonly bigint[] }
  /** arm64: an access outside memslots that the syndrome does not describe. */
  | { readonly kind: 'arm-nisv'; readonly syndrome: bigint; readonly gpa: number }
  | { readonly kind: 'hlt' }
  | { readonly kind: 'shutdown' }
  | { readonly kind: 'interrupted' }
  /** exit_reason stayed 0: KVM gave no reason. */
  | { readonly kind: 'none' }
  | { readonly kind: 'other'; readonly reason: number; readonly name: string };

/** The most 64-bit words of data in an internal error or a system event. */
const DATA_LIMIT = 16;

/**
 * The shared page of a vCPU, over any 288 bytes or more: the mapping of a vCPU descriptor, or a copy.
 * Bytes are laid out by hand, little-endian. Source: struct kvm_run, KVM's api.rst.
 */
export class KvmRun {
  readonly #view: DataView;
  readonly #words: Uint32Array;
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    if (bytes.length < KVM_RUN_HEAD_BYTES) {
      throw new RangeError(`kvm_run has at least ${KVM_RUN_HEAD_BYTES} bytes, not ${bytes.length}`);
    }
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    this.#words = new Uint32Array(bytes.buffer, bytes.byteOffset, KVM_RUN_HEAD_BYTES / 4);
  }

  get exitReason(): number {
    return this.#words[AT.exit_reason / 4]!;
  }

  /**
   * Before KVM_RUN, which leaves the reason of an earlier exit where it is if it fails early: zeroes it, so
   * that no old memory fault is taken for a new one. KVM_EXIT_MMIO stays: by it KVM on arm64 knows that an
   * access waits to be completed, and does it again otherwise, for ever.
   * Source: kvm_arch_vcpu_ioctl_run (arch/arm64/kvm/arm.c).
   */
  forgetExit(): void {
    if (this.exitReason !== KVM_EXIT.MMIO) this.#words[AT.exit_reason / 4] = 0;
  }

  /** 1 makes the next KVM_RUN return -EINTR at once; the way to stop a vCPU without losing a signal. */
  set immediateExit(on: boolean) {
    this.#bytes[AT.immediate_exit] = on ? 1 : 0;
  }

  get immediateExit(): boolean {
    return this.#bytes[AT.immediate_exit] !== 0;
  }

  /** The page of a memory-fault exit, without allocating. */
  get faultGpa(): number {
    return load64(this.#words, AT.memory_fault_gpa / 4);
  }

  get faultSize(): number {
    return load64(this.#words, AT.memory_fault_size / 4);
  }

  get faultFlags(): number {
    return load64(this.#words, AT.memory_fault_flags / 4);
  }

  /** Puts what an MMIO read shall see; the next KVM_RUN completes the instruction. */
  answerMmio(data: Uint8Array): void {
    if (data.length > 8) throw new RangeError(`an MMIO access has at most 8 bytes, not ${data.length}`);
    this.#bytes.set(data, AT.mmio_data);
  }

  /** The bytes of an IO exit, in place. */
  ioData(exit: Extract<KvmExit, { kind: 'io' }>): Uint8Array {
    return this.#bytes.subarray(exit.dataOffset, exit.dataOffset + exit.size * exit.count);
  }

  /** A plain switch, as everything that runs once per exit. */
  exit(): KvmExit {
    const view = this.#view;
    const reason = this.exitReason;
    switch (reason) {
      case KVM_EXIT.UNKNOWN:
        return { kind: 'none' };
      case KVM_EXIT.IO:
        return {
          kind: 'io',
          write: this.#bytes[AT.io_direction] === 1,
          size: this.#bytes[AT.io_size]!,
          port: view.getUint16(AT.io_port, true),
          count: view.getUint32(AT.io_count, true),
          dataOffset: load64(this.#words, AT.io_data_offset / 4),
        };
      case KVM_EXIT.MMIO: {
        const length = Math.min(8, view.getUint32(AT.mmio_len, true));
        return {
          kind: 'mmio',
          gpa: load64(this.#words, AT.mmio_phys_addr / 4),
          write: this.#bytes[AT.mmio_is_write] !== 0,
          data: this.#bytes.slice(AT.mmio_data, AT.mmio_data + length),
        };
      }
      case KVM_EXIT.MEMORY_FAULT:
        return { kind: 'memory-fault', gpa: this.faultGpa, size: this.faultSize, flags: this.faultFlags };
      case KVM_EXIT.INTERNAL_ERROR: {
        const data = this.#data(AT.internal_ndata, AT.internal_data);
        return { kind: 'internal-error', suberror: view.getUint32(AT.internal_suberror, true), data };
      }
      case KVM_EXIT.FAIL_ENTRY: {
        const cpu = view.getUint32(AT.fail_entry_cpu, true);
        return { kind: 'fail-entry', reason: view.getBigUint64(AT.fail_entry_reason, true), cpu };
      }
      case KVM_EXIT.SYSTEM_EVENT: {
        const data = this.#data(AT.system_event_ndata, AT.system_event_data);
        return { kind: 'system-event', type: view.getUint32(AT.system_event_type, true), data };
      }
      case KVM_EXIT.ARM_NISV: {
        const gpa = load64(this.#words, AT.arm_nisv_fault_ipa / 4);
        return { kind: 'arm-nisv', syndrome: view.getBigUint64(AT.arm_nisv_esr_iss, true), gpa };
      }
      case KVM_EXIT.HLT:
        return { kind: 'hlt' };
      case KVM_EXIT.SHUTDOWN:
        return { kind: 'shutdown' };
      case KVM_EXIT.INTR:
        return { kind: 'interrupted' };
      default:
        return { kind: 'other', reason, name: kvmExitName(reason) };
    }
  }

  #data(countAt: number, dataAt: number): bigint[] {
    const count = Math.min(DATA_LIMIT, this.#view.getUint32(countAt, true));
    return Array.from({ length: count }, (_, index) => this.#view.getBigUint64(dataAt + index * 8, true));
  }
}
