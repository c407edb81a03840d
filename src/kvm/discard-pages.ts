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
import { type DiscardMethod } from './slot-thread.js';

/**
 * Gives the memory of pages back, so that they are missing. `poisoned`: some of them are poisoned.
 * Precondition: no memslot maps them and the vCPUs are paused. Blocks: for the kernel's mmap lock. Errors:
 * KERNEL with errno.
 */
export function discardPages(
  region: SlotRegion,
  drop: DiscardMethod,
  pages: PageRange,
  poisoned: boolean,
): void {
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
      return poisoned ? zap(address, length) : undefined;
    case 'guest-memfd':
      unmapPages(region, drop, pages);
      return punch(region.guestMemfd, region.guestMemfdOffset + offset);
  }
}

/**
 * Unmaps pages in a guest_memfd from the VMM's address space; their contents stay, and accessors wait. A
 * placeholder, which is anonymous and already registered, is moved over them: the kernel replaces one mapping
 * by the other under its mmap lock, so that an access finds the contents or waits. A placeholder that was
 * registered in place would have to be inaccessible until then, and a load in between would end by SIGSEGV, a
 * system call by EFAULT. Other memory stays mapped.
 *
 * Precondition: as {@link discardPages}; the userfaultfd has EVENT_REMAP, without which a mapping that is
 * moved loses its registration. Blocks: until the remap event is read. Errors: KERNEL with errno (ENOMEM:
 * vm.max_map_count).
 */
export function unmapPages(region: SlotRegion, drop: DiscardMethod, pages: PageRange): void {
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
  // In a process that locks its future mappings (MCL_FUTURE) the placeholder was populated with zeros at
  // once.
  zap(placeholder, length);
}

/**
 * Zaps page table entries. Punching a hole in a file leaves poison markers in place. A kernel whose
 * madvise(2) refuses locked memory or huge pages has no poison either.
 */
function zap(address: number, length: number): void {
  const zapped = raw.madvise(address, length, MADV.DONTNEED_LOCKED);
  if (zapped !== -ERRNO.EINVAL) return must(zapped, 'madvise', address, length);
  const unlocked = raw.madvise(address, length, MADV.DONTNEED);
  if (unlocked !== -ERRNO.EINVAL) must(unlocked, 'madvise', address, length);
}

function must(result: number, syscall: string, address: number, length: number): void {
  if (result >= 0) return;
  throw systemError(syscall, -result, 'the pages cannot be discarded', {
    range: { start: BigInt(address), length: BigInt(length) },
  });
}
