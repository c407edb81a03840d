import { type PageRange } from '../api/address.js';
import {
  ERRNO,
  FALLOC,
  MADV,
  MAP,
  PROT,
  raw,
  systemError,
  UFFD_REGISTER_MODE,
  UffdPort,
} from '../linux/index.js';
import { type SlotRegion } from './slot-region.js';
import { type DropKind } from './slot-thread.js';

/** Of hiding pages that are being thawed. */
const TRIES = 8;

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
    case 'anonymous':
      return must(raw.madvise(address, length, MADV.DONTNEED), 'madvise', address, length);
    case 'file':
      punch(drop.fd, drop.fileOffset + offset);
      return poisoned ? forget(address, length) : undefined;
    case 'guest-memfd':
      hidePages(region, drop, pages);
      return punch(region.guestMemfd, region.guestMemfdOffset + offset);
  }
}

/**
 * Keeps everybody else from pages whose contents stay, where there is a way: memory that lives in a
 * guest_memfd is not mapped any more where accessors look for it. Precondition, blocking, errors: as {@link dropPages}.
 */
export function hidePages(region: SlotRegion, drop: DropKind, pages: PageRange): void {
  if (drop.kind !== 'guest-memfd') return;
  const length = pages.count * region.pageSize;
  const address = region.address + (pages.first - region.page) * region.pageSize;
  const flags = MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE | MAP.FIXED;
  const uffd = new UffdPort(drop.uffd, 1);
  try {
    for (let tries = 1; ; tries++) {
      // Without access until it is registered: an access in between fails instead of reading zeros.
      must(raw.mmap(address, length, PROT.NONE, flags, -1, 0), 'mmap', address, length);
      must(raw.madvise(address, length, MADV.DONTFORK), 'madvise', address, length);
      const registered = uffd.register(address, length, UFFD_REGISTER_MODE.MISSING);
      // Whoever thaws the pages at this moment maps them again: they are hidden all the same, and thawed once more after.
      if (registered === -ERRNO.EINVAL && tries < TRIES) continue;
      must(registered, 'ioctl UFFDIO_REGISTER', address, length);
      break;
    }
  } finally {
    uffd.close();
  }
  must(raw.mprotect(address, length, PROT.READ | PROT.WRITE), 'mprotect', address, length);
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
