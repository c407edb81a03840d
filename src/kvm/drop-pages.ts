import { type PageRange } from '../api/address.js';
import {
  discardMemory,
  ERRNO,
  FALLOC,
  MADV,
  MAP,
  MREMAP,
  PROT,
  raw,
  systemError,
  UFFD_REGISTER_MODE,
  UffdPort,
} from '../linux/index.js';
import { type SlotRegion } from './slot-region.js';
import { type DropKind } from './slot-thread.js';

/**
 * Gives the memory of pages back, so that they are missing. `poisoned`: some are. Precondition: no slot shows them and
 * the guest stands. Blocks: for the kernel's mmap lock. Errors: KERNEL with errno.
 */
export function dropPages(region: SlotRegion, drop: DropKind, pages: PageRange, poisoned: boolean): void {
  const offset = (pages.first - region.page) * region.pageSize;
  const length = pages.count * region.pageSize;
  const address = region.address + offset;
  const punch = (fd: number, at: number): void =>
    must(raw.fallocate(fd, FALLOC.PUNCH_HOLE | FALLOC.KEEP_SIZE, at, length), 'fallocate', address, length);
  switch (drop.kind) {
    case 'mapped':
      return discardMemory({ address, length, memory: drop.memory });
    case 'file':
      punch(drop.fd, drop.fileOffset + offset);
      return poisoned ? forget(address, length) : undefined;
    case 'guest-memfd':
      hidePages(region, drop, pages);
      return punch(region.guestMemfd, region.guestMemfdOffset + offset);
  }
}

/**
 * Has accessors wait for pages whose contents stay, where there is a way: over memory that lives in a guest_memfd comes
 * a placeholder, anonymous and registered already. The kernel replaces one mapping by the other under its mmap lock, so
 * that an access finds the contents, or waits: registered only where it lies, the placeholder would have to be without
 * access until it is, and a load in between ended by SIGSEGV, a system call by EFAULT.
 *
 * Precondition: as {@link dropPages}; the userfaultfd has EVENT_REMAP, without which a mapping that is moved loses its
 * registration. Blocks: until somebody has read the event of the move. Errors: KERNEL with errno (ENOMEM: vm.max_map_count).
 */
export function hidePages(region: SlotRegion, drop: DropKind, pages: PageRange): void {
  if (drop.kind !== 'guest-memfd') return;
  const length = pages.count * region.pageSize;
  const address = region.address + (pages.first - region.page) * region.pageSize;
  const flags = MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE;
  const placeholder = raw.mmap(0, length, PROT.READ | PROT.WRITE, flags, -1, 0);
  must(placeholder, 'mmap', address, length);
  try {
    register(drop.uffd, placeholder, length);
    const moved = raw.mremap(placeholder, length, length, MREMAP.MAYMOVE | MREMAP.FIXED, address);
    must(moved, 'mremap', address, length);
  } catch (error) {
    raw.munmap(placeholder, length);
    throw error;
  }
}

function register(fd: number, placeholder: number, length: number): void {
  const uffd = new UffdPort(fd, 1);
  try {
    must(raw.madvise(placeholder, length, MADV.DONTFORK), 'madvise', placeholder, length);
    const registered = uffd.register(placeholder, length, UFFD_REGISTER_MODE.MISSING);
    must(registered, 'ioctl UFFDIO_REGISTER', placeholder, length);
  } finally {
    uffd.close();
  }
  // A process that locks all it will map (MCL_FUTURE) had it filled with zeros at once.
  forget(placeholder, length);
}

/**
 * Of a file a hole leaves poison where it is. A kernel that cannot forget locked memory, or huge pages, has no poison
 * either.
 */
function forget(address: number, length: number): void {
  const forgotten = raw.madvise(address, length, MADV.DONTNEED_LOCKED);
  if (forgotten !== -ERRNO.EINVAL) return must(forgotten, 'madvise', address, length);
  const unlocked = raw.madvise(address, length, MADV.DONTNEED);
  if (unlocked !== -ERRNO.EINVAL) must(unlocked, 'madvise', address, length);
}

function must(result: number, syscall: string, address: number, length: number): void {
  if (result >= 0) return;
  throw systemError(syscall, -result, 'the pages cannot be taken away', {
    range: { start: BigInt(address), length: BigInt(length) },
  });
}
