import { type PageIndex } from '../api/address.js';
import { FALLOC, MADV, MAP, PROT, raw, systemError, UFFD_REGISTER_MODE, UffdPort } from '../linux/index.js';
import { type SlotRegion } from './slot-region.js';
import { type DropKind } from './slot-thread.js';

/**
 * Gives the memory of pages back, so that they are missing. Precondition: no slot shows them and the guest
 * stands. Blocks: for the kernel's mmap lock. Errors: KERNEL with errno.
 */
export function dropPages(region: SlotRegion, drop: DropKind, first: PageIndex, count: number): void {
  const offset = (first - region.page) * region.pageSize;
  const length = count * region.pageSize;
  const address = region.address + offset;
  const must = (result: number, syscall: string): void => {
    if (result < 0)
      throw systemError(syscall, -result, 'the pages cannot be dropped', {
        range: { start: BigInt(address), length: BigInt(length) },
      });
  };
  const punch = (fd: number, at: number): void =>
    must(raw.fallocate(fd, FALLOC.PUNCH_HOLE | FALLOC.KEEP_SIZE, at, length), 'fallocate');
  switch (drop.kind) {
    case 'anonymous':
      return must(raw.madvise(address, length, MADV.DONTNEED), 'madvise');
    case 'file':
      return punch(drop.fd, drop.fileOffset + offset);
    case 'guest-memfd': {
      // Without access until it is registered: an access in between fails instead of reading zeros.
      must(
        raw.mmap(address, length, PROT.NONE, MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE | MAP.FIXED, -1, 0),
        'mmap',
      );
      must(raw.madvise(address, length, MADV.DONTFORK), 'madvise');
      const uffd = new UffdPort(drop.uffd, 1);
      try {
        must(uffd.register(address, length, UFFD_REGISTER_MODE.MISSING), 'ioctl UFFDIO_REGISTER');
      } finally {
        uffd.close();
      }
      must(raw.mprotect(address, length, PROT.READ | PROT.WRITE), 'mprotect');
      return punch(region.guestMemfd, region.guestMemfdOffset + offset);
    }
  }
}
