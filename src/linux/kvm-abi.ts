/**
 * The KVM ABI as numbers, up to Linux 7.3: what this library uses of it. Checked by a test that
 * compiles the kernel's own headers, for x86-64 and arm64. Source: linux/kvm.h, KVM's api.rst.
 */

const KVMIO = 0xae;

const io = (number: number): number => (KVMIO << 8) | number;
const sized = (direction: number, number: number, size: number): number =>
  (((direction << 30) | (size << 16)) >>> 0) + io(number);
const iow = (number: number, size: number): number => sized(1, number, size);
const ior = (number: number, size: number): number => sized(2, number, size);
const iowr = (number: number, size: number): number => sized(3, number, size);

/** Bytes of the structures that are the same on every 64-bit architecture. */
export const KVM_SIZE = {
  userspace_memory_region: 32,
  userspace_memory_region2: 160,
  create_guest_memfd: 64,
  pre_fault_memory: 64,
  enable_cap: 104,
  dirty_log: 16,
  clear_dirty_log: 24,
  create_device: 12,
  device_attr: 24,
  irq_level: 8,
  msi: 32,
  translation: 24,
  one_reg: 16,
  vcpu_init: 32,
} as const;

/** Requests that are the same on x86-64 and arm64. */
export const KVM = {
  GET_API_VERSION: io(0x00),
  CREATE_VM: io(0x01),
  CHECK_EXTENSION: io(0x03),
  GET_VCPU_MMAP_SIZE: io(0x04),
  CREATE_VCPU: io(0x41),
  GET_DIRTY_LOG: iow(0x42, KVM_SIZE.dirty_log),
  SET_USER_MEMORY_REGION: iow(0x46, KVM_SIZE.userspace_memory_region),
  SET_USER_MEMORY_REGION2: iow(0x49, KVM_SIZE.userspace_memory_region2),
  IRQ_LINE: iow(0x61, KVM_SIZE.irq_level),
  RUN: io(0x80),
  TRANSLATE: iowr(0x85, KVM_SIZE.translation),
  ENABLE_CAP: iow(0xa3, KVM_SIZE.enable_cap),
  SIGNAL_MSI: iow(0xa5, KVM_SIZE.msi),
  GET_ONE_REG: iow(0xab, KVM_SIZE.one_reg),
  SET_ONE_REG: iow(0xac, KVM_SIZE.one_reg),
  ARM_VCPU_INIT: iow(0xae, KVM_SIZE.vcpu_init),
  ARM_PREFERRED_TARGET: ior(0xaf, KVM_SIZE.vcpu_init),
  CLEAR_DIRTY_LOG: iowr(0xc0, KVM_SIZE.clear_dirty_log),
  CREATE_GUEST_MEMFD: iowr(0xd4, KVM_SIZE.create_guest_memfd),
  PRE_FAULT_MEMORY: iowr(0xd5, KVM_SIZE.pre_fault_memory),
  CREATE_DEVICE: iowr(0xe0, KVM_SIZE.create_device),
  SET_DEVICE_ATTR: iow(0xe1, KVM_SIZE.device_attr),
  GET_DEVICE_ATTR: iow(0xe2, KVM_SIZE.device_attr),
  HAS_DEVICE_ATTR: iow(0xe3, KVM_SIZE.device_attr),
} as const;

/** Bytes of the x86-64 structures; `cpuid2` without its entries. */
export const KVM_X86_SIZE = { regs: 144, sregs: 312, cpuid2: 8, cpuid_entry2: 40 } as const;

/** Requests whose structure belongs to x86-64. */
export const KVM_X86 = {
  GET_REGS: ior(0x81, KVM_X86_SIZE.regs),
  SET_REGS: iow(0x82, KVM_X86_SIZE.regs),
  GET_SREGS: ior(0x83, KVM_X86_SIZE.sregs),
  SET_SREGS: iow(0x84, KVM_X86_SIZE.sregs),
  SET_CPUID2: iow(0x90, KVM_X86_SIZE.cpuid2),
} as const;

/** Capabilities by number, for KVM_CHECK_EXTENSION and KVM_ENABLE_CAP. */
export const KVM_CAP = {
  USER_MEMORY: 3,
  NR_VCPUS: 9,
  NR_MEMSLOTS: 10,
  MP_STATE: 14,
  SYNC_MMU: 16,
  INTERNAL_ERROR_DATA: 40,
  ASYNC_PF: 59,
  MAX_VCPUS: 66,
  ONE_REG: 70,
  SIGNAL_MSI: 77,
  READONLY_MEM: 81,
  DEVICE_CTRL: 89,
  ENABLE_CAP_VM: 98,
  CHECK_EXTENSION_VM: 105,
  MULTI_ADDRESS_SPACE: 118,
  MSI_DEVID: 131,
  IMMEDIATE_EXIT: 136,
  ARM_USER_IRQ: 144,
  ARM_VM_IPA_SIZE: 165,
  MANUAL_DIRTY_LOG_PROTECT2: 168,
  ARM_NISV_TO_USER: 177,
  ARM_INJECT_EXT_DABT: 178,
  DIRTY_LOG_RING: 192,
  EXIT_ON_EMULATION_FAILURE: 204,
  DISABLE_QUIRKS2: 213,
  DIRTY_LOG_RING_ACQ_REL: 223,
  ARM_EAGER_SPLIT_CHUNK_SIZE: 228,
  USER_MEMORY2: 231,
  MEMORY_FAULT_INFO: 232,
  MEMORY_ATTRIBUTES: 233,
  GUEST_MEMFD: 234,
  VM_TYPES: 235,
  PRE_FAULT_MEMORY: 236,
  GUEST_MEMFD_FLAGS: 244,
  ARM_SEA_TO_USER: 245,
} as const;

export type KvmCapability = keyof typeof KVM_CAP;

/** Exit reasons of `kvm_run`. */
export const KVM_EXIT = {
  UNKNOWN: 0,
  EXCEPTION: 1,
  IO: 2,
  HYPERCALL: 3,
  DEBUG: 4,
  HLT: 5,
  MMIO: 6,
  IRQ_WINDOW_OPEN: 7,
  SHUTDOWN: 8,
  FAIL_ENTRY: 9,
  INTR: 10,
  NMI: 16,
  INTERNAL_ERROR: 17,
  SYSTEM_EVENT: 24,
  ARM_NISV: 28,
  X86_RDMSR: 29,
  X86_WRMSR: 30,
  DIRTY_RING_FULL: 31,
  MEMORY_FAULT: 39,
  ARM_SEA: 41,
  ARM_LDST64B: 42,
} as const;

/** Flags of a memslot. */
export const KVM_MEM = { LOG_DIRTY_PAGES: 1, READONLY: 2, GUEST_MEMFD: 4 } as const;

/** Flags of KVM_CREATE_GUEST_MEMFD, as KVM_CAP_GUEST_MEMFD_FLAGS lists them. */
export const GUEST_MEMFD_FLAG = { MMAP: 1, INIT_SHARED: 2 } as const;
/** Of a file that can be mapped, and is a slot's shared memory from the start. */
export const GUEST_MEMFD_SHARED = GUEST_MEMFD_FLAG.MMAP | GUEST_MEMFD_FLAG.INIT_SHARED;

/** Flag of a memory-fault exit: the guest meant the private half of the page. */
export const KVM_MEMORY_EXIT_FLAG_PRIVATE = 8;

/** Quirk of x86: deleting any slot zaps every page of the VM. Disable it by KVM_CAP_DISABLE_QUIRKS2. */
export const KVM_X86_QUIRK_SLOT_ZAP_ALL = 1 << 7;

/** `flags` of KVM_SIGNAL_MSI: `devid` is valid (arm64 ITS). */
export const KVM_MSI_VALID_DEVID = 1;

/** Device types of KVM_CREATE_DEVICE. */
export const KVM_DEV_TYPE = { ARM_VGIC_V2: 5, ARM_VGIC_V3: 7, ARM_VGIC_ITS: 8 } as const;

/** Flag of KVM_CREATE_DEVICE: only ask whether the type exists. */
export const KVM_CREATE_DEVICE_TEST = 1;

export const KVM_INTERNAL_ERROR = {
  EMULATION: 1,
  SIMUL_EX: 2,
  DELIVERY_EV: 3,
  UNEXPECTED_EXIT_REASON: 4,
} as const;

/** The name of a capability's number, where this version knows it. */
export const kvmCapabilityName = (number: number): KvmCapability | undefined =>
  (Object.keys(KVM_CAP) as KvmCapability[]).find((name) => KVM_CAP[name] === number);

/** The name of an exit reason, or `exit N`. */
export const kvmExitName = (reason: number): string =>
  Object.entries(KVM_EXIT).find(([, number]) => number === reason)?.[0] ?? `exit ${reason}`;
