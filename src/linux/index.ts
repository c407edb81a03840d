export { libc, syscallNumber, type Libc, type SyscallName } from './ffi.js';
export * as raw from './raw.js';
export { check, ERRNO, systemError, type ErrnoName, type FailureContext } from './failure.js';
export { load64, loadMask, loadSigned64, NativeBlock, store64, storeMask } from './native-block.js';
export { FALLOC, HUGE_SHIFT, MADV, MAP, MFD, MREMAP, PROT, SC_PAGESIZE, type Advice } from './mman.js';
export { defaultHugePageSize, hugePageSizes, pageSize } from './page-size.js';
export { Mapping, mapMemory, type MapOptions, type MappingKind, type MappingToken } from './mapping.js';
export { WINDOW_LIMIT } from './view-window.js';
export { pagemap, PAGEMAP_HIGH, residentPages, type PagemapEntry } from './residency.js';
export { discardMemory, discardMemoryLater, type DiscardOptions } from './discard-memory.js';
export { dataRuns, type ByteRun } from './file-extents.js';
export { FoundMemory, mappedRuns, type FoundMemoryOptions } from './found-memory.js';
export { checkFileHolds, fileEndsBefore } from './memory-file.js';
export { checkPlaces, type MemoryPlace } from './memory-places.js';
export { type MappedPiece, ProcessMaps } from './process-maps.js';
export { guestMemfdSupport, type GuestMemfdSupport, takesWrites } from './guest-memfd.js';
export {
  hugePagePool,
  reserveHugePages,
  TRANSPARENT_HUGE_BYTES,
  transparentHugePages,
  type HugePagePool,
} from './huge-pages.js';
export {
  UFFD_API,
  UFFD_CONTINUE_MODE,
  UFFD_COPY_MODE,
  UFFD_EVENT,
  UFFD_FEATURE,
  UFFD_MOVE_MODE,
  UFFD_MSG_BYTES,
  UFFD_PAGEFAULT_FLAG,
  UFFD_POISON_MODE,
  UFFD_REGISTER_MODE,
  UFFD_RWPROTECT_MODE,
  UFFD_USER_MODE_ONLY,
  UFFD_WRITEPROTECT_MODE,
  UFFD_ZEROPAGE_MODE,
  uffdFeatureNames,
  UFFDIO,
  UFFDIO_SIZE,
  uffdIoctlNames,
  USERFAULTFD_IOC_NEW,
  type UffdFeature,
  type UffdIoctl,
} from './userfaultfd-abi.js';
export {
  decodeUffdEvent,
  faultKind,
  UFFD_MSG_WORDS,
  type UffdEvent,
  type UffdFaultKind,
} from './userfaultfd-event.js';
export { answerOutsideFault } from './outside-fault.js';
export { UffdPort } from './userfaultfd-port.js';
export {
  uffdFailure,
  Userfaultfd,
  USERFAULTFD_DEVICE,
  userfaultfdSupport,
  type UserfaultfdOptions,
  type UserfaultfdSupport,
} from './userfaultfd.js';
export { POLL, Poller } from './poller.js';
export { EventFd } from './event-fd.js';
export { EventLoopReader } from './event-loop-reader.js';
export { UffdArrivals } from './userfaultfd-arrivals.js';
export { endWith } from './process-end.js';
export { isUnreachable, OWN_MEMORY_HINT, readMemory, writeMemory } from './remote-memory.js';
export { copyMemory, fillMemory, load8, loadWord, store8, storeWord } from './touch.js';
export {
  closeDescriptor,
  duplicate,
  isCloseOnExec,
  makePipe,
  O,
  openDescriptor,
  setCloseOnExec,
  setNonBlocking,
  threadId,
} from './descriptor.js';
export {
  acceptFrom,
  connectTo,
  listenAt,
  peerCredentials,
  receiveWithDescriptors,
  sendWithDescriptors,
  socketPair,
  type PeerCredentials,
  type Received,
} from './unix-socket.js';
export { aThread } from './thread.js';
export { openProcess, takeDescriptor } from './pidfd.js';
export {
  GUEST_MEMFD_FLAG,
  GUEST_MEMFD_SHARED,
  KVM,
  KVM_CAP,
  KVM_CREATE_DEVICE_TEST,
  KVM_DEV_TYPE,
  KVM_EXIT,
  KVM_INTERNAL_ERROR,
  KVM_MEM,
  KVM_MEMORY_EXIT_FLAG_PRIVATE,
  KVM_MSI_VALID_DEVID,
  KVM_SIZE,
  KVM_X86,
  KVM_X86_QUIRK_SLOT_ZAP_ALL,
  KVM_X86_SIZE,
  kvmCapabilityName,
  kvmExitName,
  type KvmCapability,
} from './kvm-abi.js';
export { KVM_RUN_HEAD_BYTES, KVM_RUN_OFFSET, KvmRun, type KvmExit } from './kvm-run.js';
export {
  decodeX86Registers,
  decodeX86SpecialRegisters,
  encodeX86Cpuid,
  encodeX86Registers,
  encodeX86SpecialRegisters,
  X86_LONG_MODE_CPUID,
  X86_USER_FLAGS,
  x86UserMode,
  X86_REGISTERS,
  X86_SEGMENT_OFFSET,
  X86_SEGMENTS,
  X86_SREGS_OFFSET,
  type X86CpuidEntry,
  type X86Register,
  type X86Registers,
  type X86Segment,
  type X86SegmentName,
  type X86SpecialRegisters,
  type X86Table,
} from './kvm-x86.js';
export {
  ARM64_CORE_OFFSET,
  arm64CoreRegister,
  arm64IrqLine,
  arm64SystemRegister,
  KVM_ARM_IRQ_TYPE,
  KVM_ARM_VCPU,
  KVM_DEV_ARM_CTRL,
  KVM_DEV_ARM_VGIC_GRP,
  KVM_DEV_ARM_VGIC_SHIFT,
  KVM_VGIC_ADDR_TYPE,
  registerBytes,
  VGIC_LEVEL_INFO_LINE_LEVEL,
  vgicAttribute,
} from './kvm-arm64.js';
export {
  Kvm,
  KVM_DEVICE,
  KvmDevice,
  type DeviceIoctl,
  KvmVcpu,
  type KvmVcpuToken,
  KvmVm,
  type KvmSlot,
  type KvmTranslation,
} from './kvm.js';
export { installKickSignal, kickThread, threadLives } from './thread-signal.js';
export {
  hostFacts,
  isAtLeast,
  kvmFacts,
  type DeviceState,
  type HostCapability,
  type HostFacts,
  type HostHugePages,
  type HostSysctl,
  type KvmFacts,
} from './host.js';
export { hasTwoStagePaging } from './kvm-paging.js';
export { SharedBits } from './shared-bits.js';
