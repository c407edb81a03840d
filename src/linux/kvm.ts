import { DemandPagingError } from '../api/error.js';
import { closeDescriptor, openDescriptor, O, setCloseOnExec } from './descriptor.js';
import { check, ERRNO, type FailureContext } from './failure.js';
import { GUEST_MEMFD_SHARED, KVM, KVM_CAP, KVM_MEM, KVM_SIZE, KVM_X86, KVM_X86_SIZE } from './kvm-abi.js';
import { registerBytes } from './kvm-arm64.js';
import { KvmRun } from './kvm-run.js';
import {
  decodeX86Registers,
  decodeX86SpecialRegisters,
  encodeX86Cpuid,
  encodeX86Registers,
  encodeX86SpecialRegisters,
  type X86CpuidEntry,
  type X86Registers,
  type X86SpecialRegisters,
} from './kvm-x86.js';
import { Mapping, type MappingToken, mapMemory } from './mapping.js';
import { NativeBlock, store64 } from './native-block.js';
import * as raw from './raw.js';

export const KVM_DEVICE = '/dev/kvm';
const API_VERSION = 12;

/** EIO is KVM's answer to a process other than the one that made the VM. */
const FOREIGN = 'KVM accepts ioctls only from the process that created the VM';

function must(result: number, ioctl: string, context: FailureContext = {}): number {
  const hint = result === -ERRNO.EIO ? FOREIGN : context.hint;
  return check(result, `ioctl KVM_${ioctl}`, `KVM refused ${ioctl}`, { ...context, hint });
}

/** /dev/kvm. Blocks: never. Requires: KVM. Source: KVM's api.rst, system ioctls. */
export class Kvm {
  readonly fd: number;
  /** Bytes to map of a vCPU descriptor. */
  readonly run_bytes: number;
  #closed = false;

  private constructor(fd: number, run_bytes: number) {
    this.fd = fd;
    this.run_bytes = run_bytes;
  }

  /** Errors: NO_DEVICE, NO_PERMISSION (with what to do), NOT_SUPPORTED for an API version other than 12. */
  static open(): Kvm {
    const fd = openDescriptor(KVM_DEVICE, O.RDWR);
    try {
      const version = must(raw.ioctl(fd, KVM.GET_API_VERSION, 0), 'GET_API_VERSION');
      if (version === API_VERSION)
        return new Kvm(fd, must(raw.ioctl(fd, KVM.GET_VCPU_MMAP_SIZE, 0), 'GET_VCPU_MMAP_SIZE'));
      throw new DemandPagingError(
        'NOT_SUPPORTED',
        `KVM speaks version ${version} of its API, not ${API_VERSION}`,
      );
    } catch (error) {
      raw.close(fd);
      throw error;
    }
  }

  /** What KVM_CHECK_EXTENSION says: 0 when it is missing, else its value. */
  check(capability: number): number {
    return must(raw.ioctl(this.fd, KVM.CHECK_EXTENSION, capability), 'CHECK_EXTENSION');
  }

  /** `type`: 0, or on arm64 the IPA size in bits. Errors: KERNEL (ENOMEM; EINVAL: the type). */
  createVm(type = 0): KvmVm {
    // Whatever signal is pending, the kernel gives up where it begins to watch the mapping: asked again, as
    // QEMU does.
    let fd: number;
    do fd = raw.ioctl(this.fd, KVM.CREATE_VM, type);
    while (fd === -ERRNO.EINTR);
    return new KvmVm(must(fd, 'CREATE_VM'), this.run_bytes);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    closeDescriptor(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** One memslot, for {@link KvmVm.setSlot}. Units: bytes; everything but the size is page-aligned. */
export interface KvmSlot {
  readonly slot: number;
  /** Bits of {@link KVM_MEM}; GUEST_MEMFD is set by giving `guestMemfd`. */
  readonly flags?: number;
  readonly gpa: number;
  /** 0 deletes the slot. */
  readonly length: number;
  /** Where it lies in this process. */
  readonly userspace: number;
  readonly guestMemfd?: number | undefined;
  readonly guestMemfdOffset?: number | undefined;
  /** Address of a bitmap, on a kernel with KVM Userfault; its flag is the caller's to give. */
  readonly userfaultBitmap?: number | undefined;
}

/**
 * A virtual machine. Every ioctl must come from the process that made it (EIO otherwise); any
 * thread may issue them, and memslot changes wait for every KVM access that waits in a userfaultfd.
 */
export class KvmVm {
  readonly fd: number;
  readonly #run_bytes: number;
  readonly #argument = new NativeBlock(KVM_SIZE.userspace_memory_region2);
  #closed = false;

  readonly #owned: boolean;

  /** Over a VM descriptor that this takes over; `run_bytes` is {@link Kvm.run_bytes}. */
  constructor(fd: number, run_bytes: number, owned = true) {
    this.fd = fd;
    this.#run_bytes = run_bytes;
    this.#owned = owned;
  }

  /** Over a VM descriptor that stays its owner's and outlives this object. */
  static borrow(fd: number, run_bytes: number): KvmVm {
    return new KvmVm(fd, run_bytes, false);
  }

  check(capability: number): number {
    return must(raw.ioctl(this.fd, KVM.CHECK_EXTENSION, capability), 'CHECK_EXTENSION');
  }

  /**
   * Creates, changes or (length 0) deletes a slot by KVM_SET_USER_MEMORY_REGION2, or by its first
   * version where there is no guest_memfd, which every kernel has. Raw: 0 or `-errno`
   * (-EEXIST overlap, -EINVAL, -ENOMEM).
   * Blocks: until no KVM access of this VM is under way: as long as the slowest page fault.
   */
  trySetSlot(slot: KvmSlot): number {
    if (this.#closed) return -ERRNO.EBADF;
    const { words, bytes, address } = this.#argument;
    const bound = slot.guestMemfd !== undefined;
    bytes.fill(0);
    words[0] = slot.slot;
    words[1] = (slot.flags ?? 0) | (bound ? KVM_MEM.GUEST_MEMFD : 0);
    store64(words, 2, slot.gpa);
    store64(words, 4, slot.length);
    store64(words, 6, slot.userspace);
    if (!bound && slot.userfaultBitmap === undefined)
      return raw.ioctl(this.fd, KVM.SET_USER_MEMORY_REGION, address);
    store64(words, 8, slot.guestMemfdOffset ?? 0);
    words[10] = slot.guestMemfd ?? 0;
    store64(words, 12, slot.userfaultBitmap ?? 0);
    return raw.ioctl(this.fd, KVM.SET_USER_MEMORY_REGION2, address);
  }

  /** As {@link trySetSlot}. Errors: BAD_RANGE (EEXIST: it overlaps another), KERNEL, CLOSED. */
  setSlot(slot: KvmSlot): void {
    must(this.trySetSlot(slot), 'SET_USER_MEMORY_REGION', {
      codes: { [ERRNO.EEXIST]: 'BAD_RANGE', [ERRNO.EBADF]: 'CLOSED' },
      range: { start: BigInt(slot.gpa), length: BigInt(slot.length) },
    });
  }

  /**
   * A guest_memfd of `size` bytes; close-on-exec is set at once, which the kernel does not do.
   * Errors: NOT_SUPPORTED (ENOTTY; EINVAL: a flag that KVM_CAP_GUEST_MEMFD_FLAGS does not list).
   * Requires: KVM_CAP_GUEST_MEMFD; to map it, Linux 6.18 and the MMAP flag.
   */
  createGuestMemfd(size: number, flags: number): number {
    using argument = new NativeBlock(KVM_SIZE.create_guest_memfd);
    store64(argument.words, 0, size);
    store64(argument.words, 2, flags);
    const result = raw.ioctl(this.fd, KVM.CREATE_GUEST_MEMFD, argument.address);
    const fd = must(result, 'CREATE_GUEST_MEMFD', { codes: { [ERRNO.EINVAL]: 'NOT_SUPPORTED' } });
    try {
      setCloseOnExec(fd, true);
    } catch (error) {
      raw.close(fd);
      throw error;
    }
    return fd;
  }

  /** KVM_ENABLE_CAP. Errors: NOT_SUPPORTED (EINVAL), KERNEL. */
  enable(capability: number, args: readonly number[] = [], flags = 0): void {
    using argument = new NativeBlock(KVM_SIZE.enable_cap);
    argument.words[0] = capability;
    argument.words[1] = flags;
    args.forEach((value, index) => store64(argument.words, 2 + index * 2, value));
    const result = raw.ioctl(this.fd, KVM.ENABLE_CAP, argument.address);
    must(result, 'ENABLE_CAP', { codes: { [ERRNO.EINVAL]: 'NOT_SUPPORTED' } });
  }

  /** Reads and clears a slot's dirty bitmap into memory at `bitmap`: one bit per page, rounded up to 64. */
  dirtyLog(slot: number, bitmap: number): void {
    using argument = new NativeBlock(KVM_SIZE.dirty_log);
    argument.words[0] = slot;
    store64(argument.words, 2, bitmap);
    const result = raw.ioctl(this.fd, KVM.GET_DIRTY_LOG, argument.address);
    must(result, 'GET_DIRTY_LOG', {
      codes: { [ERRNO.ENOENT]: 'NOT_SUPPORTED' },
      hint: 'The slot does not log dirty pages',
    });
  }

  /** An in-kernel device: its descriptor. Errors: NOT_SUPPORTED (ENODEV: no such type), KERNEL (EEXIST). */
  createDevice(type: number, flags = 0): KvmDevice {
    using argument = new NativeBlock(KVM_SIZE.create_device);
    argument.words[0] = type;
    argument.words[2] = flags;
    const result = raw.ioctl(this.fd, KVM.CREATE_DEVICE, argument.address);
    must(result, 'CREATE_DEVICE', { codes: { [ERRNO.ENODEV]: 'NOT_SUPPORTED' } });
    return new KvmDevice(argument.words[1]!);
  }

  /**
   * KVM_SIGNAL_MSI: 1 delivered, 0 blocked by the guest, or `-errno`. It may touch guest memory (arm64 ITS).
   */
  signalMsi(address: number, data: number, deviceId?: number): number {
    using argument = new NativeBlock(KVM_SIZE.msi);
    store64(argument.words, 0, address);
    argument.words[2] = data;
    if (deviceId !== undefined) {
      argument.words[3] = 1; // KVM_MSI_VALID_DEVID
      argument.words[4] = deviceId;
    }
    return raw.ioctl(this.fd, KVM.SIGNAL_MSI, argument.address);
  }

  /**
   * KVM_IRQ_LINE: holds an interrupt's line at a level. On arm64 `irq` is what `arm64IrqLine` gives.
   * Errors: KERNEL (EINVAL: no such interrupt; ENXIO: no interrupt controller).
   */
  setIrqLine(irq: number, level: 0 | 1): void {
    using argument = new NativeBlock(KVM_SIZE.irq_level);
    argument.words[0] = irq;
    argument.words[1] = level;
    must(raw.ioctl(this.fd, KVM.IRQ_LINE, argument.address), 'IRQ_LINE');
  }

  /** Errors: KERNEL (EEXIST: the id is taken; EINVAL: too large). */
  createVcpu(id: number): KvmVcpu {
    return KvmVcpu.adopt(must(raw.ioctl(this.fd, KVM.CREATE_VCPU, id), 'CREATE_VCPU'), this.#run_bytes);
  }

  /** arm64: the `struct kvm_vcpu_init` that fits this host, for {@link KvmVcpu.initialise}. */
  preferredTarget(): Uint32Array {
    using argument = new NativeBlock(KVM_SIZE.vcpu_init);
    must(raw.ioctl(this.fd, KVM.ARM_PREFERRED_TARGET, argument.address), 'ARM_PREFERRED_TARGET');
    return argument.words.slice(0, KVM_SIZE.vcpu_init / 4);
  }

  /** Flags of guest_memfds that this VM takes, as a mask of `GUEST_MEMFD_FLAG`. */
  get guestMemfdFlags(): number {
    if (this.check(KVM_CAP.GUEST_MEMFD) === 0) return 0;
    return this.check(KVM_CAP.GUEST_MEMFD_FLAGS);
  }

  /** Whether this VM takes guest_memfds with {@link GUEST_MEMFD_SHARED}: Linux 6.18. */
  get sharesGuestMemfd(): boolean {
    return (this.guestMemfdFlags & GUEST_MEMFD_SHARED) === GUEST_MEMFD_SHARED;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#argument.free();
    if (this.#owned) closeDescriptor(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Behind the argument: what an attribute's data is, where it is one number. */
const VALUE_BYTES = 8;

/** ioctl(2) on a device: the result, or a negative errno. Tests put their own device in its place. */
export type DeviceIoctl = (fd: number, request: number, argument: number) => number;

/** An in-kernel device with attributes. Source: KVM's devices/README. */
export class KvmDevice {
  readonly fd: number;
  readonly #argument = new NativeBlock(KVM_SIZE.device_attr + VALUE_BYTES);
  readonly #owned: boolean;
  readonly #ioctl: DeviceIoctl;
  #closed = false;

  /** Over a descriptor that this takes over. `ioctl` replaces the kernel's where there is none. */
  constructor(fd: number, ioctl: DeviceIoctl = raw.ioctl, owned = true) {
    this.fd = fd;
    this.#ioctl = ioctl;
    this.#owned = owned;
  }

  /** Over a device's descriptor that stays the caller's and outlives this. */
  static borrow(fd: number): KvmDevice {
    return new KvmDevice(fd, raw.ioctl, false);
  }

  #attribute(request: number, group: number, attribute: bigint, data: number): number {
    if (this.#closed) return -ERRNO.EBADF;
    this.#argument.words[0] = 0;
    this.#argument.words[1] = group;
    this.#argument.view.setBigUint64(8, attribute, true);
    store64(this.#argument.words, 4, data);
    return this.#ioctl(this.fd, request, this.#argument.address);
  }

  /** KVM_HAS_DEVICE_ATTR. */
  has(group: number, attribute: bigint): boolean {
    return this.#attribute(KVM.HAS_DEVICE_ATTR, group, attribute, 0) === 0;
  }

  /**
   * KVM_SET_DEVICE_ATTR with memory at `data` (0 for a command): 0 or `-errno`, because which errno
   * it is belongs to each attribute. A command of the ITS waits for every guest page it touches.
   */
  set(group: number, attribute: bigint, data = 0): number {
    return this.#attribute(KVM.SET_DEVICE_ATTR, group, attribute, data);
  }

  /** KVM_GET_DEVICE_ATTR into memory at `data`: 0 or `-errno`. */
  get(group: number, attribute: bigint, data: number): number {
    return this.#attribute(KVM.GET_DEVICE_ATTR, group, attribute, data);
  }

  /** {@link set} of an attribute whose data is one u64, or one u32: its low half. */
  setValue(group: number, attribute: bigint, value: bigint): number {
    if (this.#closed) return -ERRNO.EBADF;
    this.#argument.view.setBigUint64(KVM_SIZE.device_attr, value, true);
    return this.set(group, attribute, this.#argument.address + KVM_SIZE.device_attr);
  }

  /** {@link get} of an attribute whose data is one u64 or u32; `value` is 0 where the status is an errno. */
  getValue(group: number, attribute: bigint): { readonly status: number; readonly value: bigint } {
    if (this.#closed) return { status: -ERRNO.EBADF, value: 0n };
    this.#argument.view.setBigUint64(KVM_SIZE.device_attr, 0n, true);
    const status = this.get(group, attribute, this.#argument.address + KVM_SIZE.device_attr);
    return {
      status,
      value: status === 0 ? this.#argument.view.getBigUint64(KVM_SIZE.device_attr, true) : 0n,
    };
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#argument.free();
    if (this.#owned) closeDescriptor(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** What a guest-virtual address means to a vCPU right now. */
export interface KvmTranslation {
  readonly valid: boolean;
  readonly gpa: bigint;
}

/** A vCPU as another isolate of the same process may run it: plain, so it crosses postMessage. */
export interface KvmVcpuToken {
  readonly fd: number;
  readonly page: MappingToken;
}

/** A vCPU. One thread runs it; that thread blocks in {@link run}, event loop included. */
export class KvmVcpu {
  readonly fd: number;
  readonly run: KvmRun;
  readonly #page: Mapping;
  readonly #block = new NativeBlock(KVM_X86_SIZE.sregs);
  #closed = false;

  private constructor(fd: number, page: Mapping) {
    this.fd = fd;
    this.#page = page;
    this.run = new KvmRun(page.bytes());
  }

  /**
   * Over a vCPU descriptor, which this takes over. Another isolate may have its own over a duplicate
   * of the descriptor: the page is shared.
   */
  static adopt(fd: number, run_bytes: number): KvmVcpu {
    try {
      return new KvmVcpu(fd, mapMemory({ kind: 'file', length: run_bytes, fd, reserve: true }));
    } catch (error) {
      raw.close(fd);
      throw error;
    }
  }

  /**
   * A vCPU that another isolate has and outlives this, which gives nothing back of it: a thread that ends in
   * the middle of an access leaves nothing behind.
   */
  static borrow({ fd, page }: KvmVcpuToken): KvmVcpu {
    return new KvmVcpu(fd, Mapping.borrow(page));
  }

  /** What {@link borrow} needs. */
  get token(): KvmVcpuToken {
    return { fd: this.fd, page: this.#page.token };
  }

  /**
   * KVM_RUN: 0 or `-errno`, with the reason in {@link run}. -EINTR: a signal or immediate_exit; the reason
   * says nothing. -EFAULT and -EHWPOISON: look at the exit; it may be `none`, or an MMIO from before.
   * Blocks: until the guest exits.
   */
  enter(): number {
    if (this.#closed) return -ERRNO.EBADF;
    this.run.forgetExit();
    return raw.ioctl(this.fd, KVM.RUN, 0);
  }

  /** x86-64: the general registers. */
  get registers(): X86Registers {
    this.#ioctl(KVM_X86.GET_REGS, 'GET_REGS');
    return decodeX86Registers(this.#argument.bytes);
  }

  /** x86-64: sets the named general registers and leaves the others. */
  setRegisters(registers: Partial<X86Registers>): void {
    this.#ioctl(KVM_X86.GET_REGS, 'GET_REGS');
    encodeX86Registers(this.#argument.bytes, registers);
    this.#ioctl(KVM_X86.SET_REGS, 'SET_REGS');
  }

  /** x86-64: the special registers. */
  get specialRegisters(): X86SpecialRegisters {
    this.#ioctl(KVM_X86.GET_SREGS, 'GET_SREGS');
    return decodeX86SpecialRegisters(this.#argument.bytes);
  }

  /** x86-64: sets the named special registers and leaves the others. */
  setSpecialRegisters(registers: Partial<X86SpecialRegisters>): void {
    this.#ioctl(KVM_X86.GET_SREGS, 'GET_SREGS');
    encodeX86SpecialRegisters(this.#argument.bytes, registers);
    this.#ioctl(KVM_X86.SET_SREGS, 'SET_SREGS');
  }

  /** x86-64: KVM_SET_CPUID2, before the vCPU first runs. Errors: KERNEL (EINVAL: it contradicts itself). */
  setCpuid(entries: readonly X86CpuidEntry[]): void {
    const encoded = encodeX86Cpuid(entries);
    using argument = new NativeBlock(encoded.length);
    argument.bytes.set(encoded);
    must(raw.ioctl(this.fd, KVM_X86.SET_CPUID2, argument.address), 'SET_CPUID2');
  }

  /** x86-64: walks the guest's page tables, touching guest memory as KVM itself does. Blocks on its pages. */
  translate(linear: bigint): KvmTranslation {
    this.#argument.bytes.fill(0, 0, KVM_SIZE.translation);
    this.#argument.view.setBigUint64(0, linear, true);
    this.#ioctl(KVM.TRANSLATE, 'TRANSLATE');
    return { gpa: this.#argument.view.getBigUint64(8, true), valid: this.#argument.bytes[16] !== 0 };
  }

  /** arm64: KVM_ARM_VCPU_INIT with what {@link KvmVm.preferredTarget} gave, features changed as wanted. */
  initialise(target: Uint32Array): void {
    this.#argument.words.set(target.subarray(0, KVM_SIZE.vcpu_init / 4));
    this.#ioctl(KVM.ARM_VCPU_INIT, 'ARM_VCPU_INIT');
  }

  /** KVM_GET_ONE_REG of a register of at most 64 bits. Errors: NOT_SUPPORTED (ENOENT: no such register). */
  register(id: bigint): bigint {
    this.#oneRegister(KVM.GET_ONE_REG, 'GET_ONE_REG', id);
    return registerBytes(id) === 4
      ? BigInt(this.#argument.words[4]!)
      : this.#argument.view.getBigUint64(16, true);
  }

  /** KVM_SET_ONE_REG. Errors: as {@link register}; KERNEL (EINVAL: the value). */
  setRegister(id: bigint, value: bigint): void {
    this.#argument.view.setBigUint64(16, value, true);
    this.#oneRegister(KVM.SET_ONE_REG, 'SET_ONE_REG', id);
  }

  /**
   * KVM_PRE_FAULT_MEMORY: fills the second-stage tables for `[gpa, gpa + length)`. Returns how many
   * bytes are left to do and 0 or `-errno`. Requires: KVM_CAP_PRE_FAULT_MEMORY.
   */
  preFault(gpa: number, length: number): { readonly result: number; readonly left: number } {
    this.#argument.bytes.fill(0, 0, KVM_SIZE.pre_fault_memory);
    store64(this.#argument.words, 0, gpa);
    store64(this.#argument.words, 2, length);
    const result = raw.ioctl(this.fd, KVM.PRE_FAULT_MEMORY, this.#argument.address);
    return { result, left: Number(this.#argument.view.getBigUint64(8, true)) };
  }

  #oneRegister(request: number, name: string, id: bigint): void {
    if (registerBytes(id) > 8) throw new RangeError(`register 0x${id.toString(16)} is wider than 64 bits`);
    this.#argument.view.setBigUint64(0, id, true);
    store64(this.#argument.words, 2, this.#argument.address + 16);
    this.#ioctl(request, name, { codes: { [ERRNO.ENOENT]: 'NOT_SUPPORTED' } });
  }

  /** The argument of the next ioctl; it is gone once the vCPU was closed. */
  get #argument(): NativeBlock {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the vCPU was closed');
    return this.#block;
  }

  #ioctl(request: number, name: string, context?: FailureContext): void {
    must(raw.ioctl(this.fd, request, this.#argument.address), name, context);
  }

  /** Unmaps the shared page and closes the descriptor; the vCPU itself lives as long as the VM. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#block.free();
    this.#page.dispose(); // owns the descriptor
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
