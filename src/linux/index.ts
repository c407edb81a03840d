export { libc, syscallNumber, type Libc, type SyscallName } from './ffi.js';
export * as raw from './raw.js';
export { check, ERRNO, systemError, type ErrnoName, type FailureContext } from './failure.js';
export { load64, loadMask, loadSigned64, NativeBlock, store64, storeMask } from './native-block.js';
export { FALLOC, HUGE_SHIFT, MADV, MAP, MFD, MREMAP, PROT, SC_PAGESIZE, type Advice } from './mman.js';
export { defaultHugePageSize, hugePageSizes, pageSize } from './page-size.js';
export { Mapping, mapMemory, type MapOptions, type MappingKind, type MappingToken } from './mapping.js';
export { WINDOW_LIMIT } from './view-window.js';
export { pagemap, residentPages, type PagemapEntry } from './residency.js';
export { hugePagePool, reserveHugePages, type HugePagePool } from './huge-pages.js';
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
export { isUnreachable, readMemory, writeMemory } from './remote-memory.js';
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
export { openProcess, takeDescriptor } from './pidfd.js';
