import { ERRNO, MADV, MAP, PAGEMAP_HIGH, PROT, raw, NativeBlock, writeMemory } from '../../linux/index.js';
import { type Segment } from './address-map.js';

const ENTRY_BYTES = 8;
const PAGES_PER_LOOK = 512;
const O_RDONLY_CLOEXEC = 0o2000000;
const PAGEMAP = '/proc/self/pagemap';

/**
 * Whether a place of shared memory has a page, or poison. A page that is under way to another frame counts as
 * swapped as markers do, but says that it is a file's. The marker that UFFDIO_WRITEPROTECT leaves where no
 * page is has nothing behind it, and CONTINUE replaces it.
 */
function isTaken(high: number): boolean {
  const { present, swap, file, uffdWp } = PAGEMAP_HIGH;
  if ((high & (present | swap)) === 0) return false;
  return (high & (present | file | uffdWp)) !== uffdWp;
}

const keyOf = ({ fd, fileOffset }: Segment): string => `${fd}:${fileOffset}`;

/**
 * Writes contents into the page cache behind a mapping, out of sight of the userfaultfd that watches it,
 * before CONTINUE maps them. Only behind pages that are not mapped yet: what the guest has
 * already is never written over. Used by the resolver's thread only; for memory of this process.
 */
export class PageCacheFiller {
  readonly #basePage: number;
  #pagemap = -1;
  readonly #entries = new NativeBlock(PAGES_PER_LOOK * ENTRY_BYTES);
  /** Second mappings of hugetlb files, which take no pwrite, by descriptor and place. */
  readonly #aliases = new Map<string, { readonly address: number; readonly length: number }>();

  constructor(basePage: number) {
    this.#basePage = basePage;
  }

  /**
   * How many of `count` pages from `address` are not mapped, up to the first that is; or `-errno`, which says
   * nothing of the memory: the same call will fail again. See {@link raw.failedCall}.
   */
  unmapped(address: number, count: number, pageSize: number): number {
    if (this.#pagemap < 0) {
      const fd = raw.open(PAGEMAP, O_RDONLY_CLOEXEC);
      if (fd < 0) return fd;
      this.#pagemap = fd;
    }
    const stride = pageSize / this.#basePage; // a huge page is mapped whole: its first entry speaks for it
    const perLook = Math.max(1, Math.floor(PAGES_PER_LOOK / stride));
    for (let page = 0; page < count; page += perLook) {
      const look = Math.min(perLook, count - page);
      const entries = (look - 1) * stride + 1;
      const at = ((address + page * pageSize) / this.#basePage) * ENTRY_BYTES;
      const read = raw.pread(this.#pagemap, this.#entries.address, entries * ENTRY_BYTES, at);
      if (read < 0) return read;
      for (let i = 0; i < look; i++) if (isTaken(this.#entries.words[i * stride * 2 + 1]!)) return page + i;
    }
    return count;
  }

  /** Writes `length` bytes from `source` behind a segment, `offset` bytes into it. 0 or `-errno`. */
  fill(segment: Segment, offset: number, source: number, length: number): number {
    if (segment.fd < 0) return -ERRNO.EBADF;
    if (segment.memory === 'hugetlb') {
      // By the kernel: where the pool has no page, or the file was truncated, that is an errno to it, and not
      // a SIGBUS.
      const alias = this.#alias(segment);
      if (alias < 0) return alias;
      const written = writeMemory(alias + offset, source, length);
      if (written === length) return 0;
      return written < 0 && written !== -ERRNO.EFAULT ? written : -ERRNO.ENOMEM;
    }
    // pwrite, not memcpy through a second mapping: a file that cannot grow is an errno, not a SIGBUS.
    for (let done = 0; done < length;) {
      const written = raw.pwrite(
        segment.fd,
        source + done,
        length - done,
        segment.fileOffset + offset + done,
      );
      if (written === -ERRNO.EINTR) continue;
      if (written <= 0) return written || -ERRNO.EIO;
      done += written;
    }
    return 0;
  }

  /** A segment is gone: its descriptor may soon be another file's. */
  forget(segment: Segment): void {
    const key = keyOf(segment);
    const alias = this.#aliases.get(key);
    if (alias) raw.munmap(alias.address, alias.length);
    this.#aliases.delete(key);
  }

  close(): void {
    if (this.#pagemap >= 0) raw.close(this.#pagemap);
    this.#pagemap = -1;
    for (const { address, length } of this.#aliases.values()) raw.munmap(address, length);
    this.#aliases.clear();
    this.#entries.free();
  }

  /** The address of a second mapping, or `-errno`. */
  #alias(segment: Segment): number {
    const key = keyOf(segment);
    let alias = this.#aliases.get(key);
    if (!alias) {
      const length = segment.count * segment.pageSize;
      const address = raw.mmap(0, length, PROT.READ | PROT.WRITE, MAP.SHARED, segment.fd, segment.fileOffset);
      if (address < 0) return address;
      alias = { address, length };
      raw.madvise(address, length, MADV.DONTFORK);
      this.#aliases.set(key, alias);
    }
    return alias.address;
  }
}
