import { DemandPagingError } from '../api/error.js';
import { hugePoolFile } from '../api/huge-pool.js';
import { hva, type Hva } from '../api/address.js';
import { libc } from './ffi.js';
import { duplicate } from './descriptor.js';
import { check, ERRNO, systemError } from './failure.js';
import { FALLOC, HUGE_SHIFT, MADV, MAP, MFD, MREMAP, PROT, type Advice } from './mman.js';
import { defaultHugePageSize, pageSize } from './page-size.js';
import * as raw from './raw.js';
import { residentPages } from './residency.js';
import { ViewWindow, WINDOW_LIMIT } from './view-window.js';

/**
 * What memory is made of.
 * - `anonymous`: private anonymous pages of the base size.
 * - `shmem`: a memfd, mapped shared; a second mapping ({@link Mapping.alias}) sees the same pages.
 * - `hugetlb`: private anonymous huge pages.
 * - `hugetlb-shmem`: a memfd of huge pages, mapped shared.
 * - `reserved`: addresses only (PROT_NONE): nothing is there until something is mapped over it.
 * - `file`: an existing descriptor, mapped shared (a memfd received from elsewhere, a guest_memfd).
 */
export type MappingKind = 'anonymous' | 'shmem' | 'hugetlb' | 'hugetlb-shmem' | 'reserved' | 'file';

export interface MapOptions {
  readonly kind: MappingKind;
  /** Bytes; a multiple of the page size, or of the huge page size for the hugetlb kinds. */
  readonly length: number;
  /** Huge page size in bytes; default: the kernel's default (2 MiB on x86-64). */
  readonly hugePageSize?: number | undefined;
  /** Whether swap or huge pages are set aside at once. Default: false for base pages, true for hugetlb. */
  readonly reserve?: boolean | undefined;
  /** Whether child processes inherit the mapping. Default false (MADV_DONTFORK). */
  readonly inherited?: boolean | undefined;
  /** MADV_HUGEPAGE or MADV_NOHUGEPAGE; default: as the system is set. */
  readonly transparentHugePages?: boolean | undefined;
  /** Fills the page tables at once (MAP_POPULATE). Default false. */
  readonly populate?: boolean | undefined;
  /** Exact address; it must be free (MAP_FIXED_NOREPLACE). Default: the kernel chooses. */
  readonly address?: number | undefined;
  /** PROT bits; default READ|WRITE, NONE for `reserved`. */
  readonly protection?: number | undefined;
  /** Name of the memfd in /proc; default `demand-paging`. */
  readonly name?: string | undefined;
  /**
   * For `file`: the descriptor, which is closed with the mapping, and stays the caller's if there is none.
   */
  readonly fd?: number | undefined;
  /** Where in the file the mapping begins, in bytes; default 0. */
  readonly fileOffset?: number | undefined;
}

const isHuge = (kind: MappingKind): boolean => kind === 'hugetlb' || kind === 'hugetlb-shmem';
const isShared = (kind: MappingKind): boolean =>
  kind === 'shmem' || kind === 'hugetlb-shmem' || kind === 'file';

function granule(options: MapOptions): number {
  if (!isHuge(options.kind)) return pageSize();
  const size = options.hugePageSize ?? defaultHugePageSize();
  if (size === undefined) {
    throw new DemandPagingError('NOT_SUPPORTED', 'this kernel has no hugetlb pages', {
      hint: 'It needs CONFIG_HUGETLBFS',
    });
  }
  return size;
}

function checkLength(length: number, unit: number): void {
  if (!Number.isSafeInteger(length) || length <= 0)
    throw new RangeError(`length ${length} is not a positive integer`);
  if (length % unit !== 0) {
    throw new DemandPagingError('BAD_ALIGNMENT', `length ${length} is no multiple of the page size ${unit}`);
  }
}

function hugePagesMissing(syscall: string, length: number, size: number): DemandPagingError {
  const pages = length / size;
  return systemError(syscall, ERRNO.ENOMEM, `no ${pages} free huge pages of ${size / 1024} KiB`, {
    codes: { [ERRNO.ENOMEM]: 'NO_HUGE_PAGES' },
    hint: `Write a number to ${hugePoolFile(size)} that leaves at least ${pages} free`,
  });
}

function memoryFile(options: MapOptions, unit: number): number {
  const huge = isHuge(options.kind);
  const flags = MFD.CLOEXEC | (huge ? MFD.HUGETLB | (Math.log2(unit) << HUGE_SHIFT) : 0);
  const made = libc().memfd_create(options.name ?? 'demand-paging', flags);
  const fd = check(made === -1 ? -libc().errno() : made, 'memfd_create', 'cannot create a memory file');
  if (libc().ftruncate(fd, options.length) === -1) {
    const errno = libc().errno();
    raw.close(fd);
    throw systemError('ftruncate', errno, `cannot size a memory file to ${options.length} bytes`);
  }
  return fd;
}

/**
 * Maps memory.
 * Preconditions: `length` is a positive multiple of the (huge) page size.
 * Blocks: never, except with `populate`, for as long as the kernel takes to allocate.
 * Errors: BAD_ALIGNMENT; NO_HUGE_PAGES (ENOMEM of a hugetlb kind); NOT_SUPPORTED (no hugetlb);
 * KERNEL with errno (ENOMEM; EEXIST: `address` is taken).
 * Units: bytes. Source: mmap(2), memfd_create(2).
 */
export function mapMemory(options: MapOptions): Mapping {
  const unit = granule(options);
  checkLength(options.length, unit);
  const { kind, length } = options;
  if (kind === 'file' && options.fd === undefined) throw new TypeError("a mapping of kind 'file' needs fd");
  const fd = kind === 'file' ? options.fd! : isShared(kind) ? memoryFile(options, unit) : -1;
  const reserve = options.reserve ?? isHuge(kind);
  const flags =
    (isShared(kind) ? MAP.SHARED : MAP.PRIVATE) |
    (fd === -1 ? MAP.ANONYMOUS : 0) |
    (kind === 'hugetlb' ? MAP.HUGETLB | (Math.log2(unit) << HUGE_SHIFT) : 0) |
    (reserve ? 0 : MAP.NORESERVE) |
    (options.populate ? MAP.POPULATE : 0) |
    (options.address === undefined ? 0 : MAP.FIXED_NOREPLACE);
  const protection = options.protection ?? (kind === 'reserved' ? PROT.NONE : PROT.READ | PROT.WRITE);
  const address = raw.mmap(options.address ?? 0, length, protection, flags, fd, options.fileOffset ?? 0);
  if (address < 0) {
    if (fd !== -1 && kind !== 'file') raw.close(fd);
    if (isHuge(kind) && address === -ERRNO.ENOMEM) throw hugePagesMissing('mmap', length, unit);
    throw systemError('mmap', -address, `cannot map ${length} bytes (${kind})`);
  }
  const mapping = new Mapping({
    kind,
    address,
    length,
    pageSize: unit,
    fd: fd === -1 ? undefined : fd,
    owned: true,
  });
  try {
    if (!options.inherited) mapping.advise('DONTFORK');
    if (options.transparentHugePages !== undefined) {
      mapping.advise(options.transparentHugePages ? 'HUGEPAGE' : 'NOHUGEPAGE');
    }
  } catch (error) {
    raw.munmap(address, length);
    if (fd !== -1 && kind !== 'file') raw.close(fd);
    throw error;
  }
  return mapping;
}

/** A mapping as another isolate of the same process may look at it: plain, so it crosses postMessage. */
export interface MappingToken {
  readonly kind: MappingKind;
  readonly address: number;
  readonly length: number;
  readonly pageSize: number;
  readonly fd: number | undefined;
}

interface MappingParts extends MappingToken {
  readonly owned: boolean;
}

/**
 * Mapped memory of this process.
 *
 * Touching a window from {@link bytes} is a real memory access: on a missing page of a registered
 * range it blocks this thread until the page is resolved, and on a poisoned page, past the end of a
 * truncated file or under `UFFD_FEATURE_SIGBUS` it kills the process. For accesses that may fail
 * use {@link readMemory} and {@link writeMemory}.
 *
 * Nothing is unmapped by garbage collection: {@link dispose} of it, or it lasts as long as the process.
 */
export class Mapping {
  readonly kind: MappingKind;
  /** Where it starts, in this process. */
  readonly address: number;
  /** Bytes. */
  readonly length: number;
  /** Granule of this memory in bytes: the base page size, or the huge page size. */
  readonly pageSize: number;
  /** Whether a second mapping of {@link fd} shows the same pages. */
  readonly shared: boolean;
  #fd: number | undefined;
  #windows: ViewWindow;
  #owned: boolean;
  #closed = false;

  /** @internal Use {@link mapMemory} or {@link Mapping.borrow}. */
  constructor(parts: MappingParts) {
    this.kind = parts.kind;
    this.address = parts.address;
    this.length = parts.length;
    this.pageSize = parts.pageSize;
    this.shared = isShared(parts.kind);
    this.#fd = parts.fd;
    this.#owned = parts.owned;
    this.#windows = new ViewWindow(parts.address, parts.length);
  }

  /**
   * A mapping that belongs to another isolate of this process. Disposing of the borrowed one ends
   * its windows and nothing else. The owner must outlive it: nothing here can check that.
   */
  static borrow(token: MappingToken): Mapping {
    return new Mapping({ ...token, owned: false });
  }

  /** What {@link borrow} needs, for postMessage. */
  get token(): MappingToken {
    const { kind, address, length, pageSize } = this;
    return { kind, address, length, pageSize, fd: this.#fd };
  }

  /** {@link address} as the API's branded type. */
  get hva(): Hva {
    return hva(this.address);
  }

  /** The memory file behind a shared mapping; closed by {@link dispose}. */
  get fd(): number | undefined {
    return this.#fd;
  }

  get closed(): boolean {
    return this.#closed;
  }

  #check(offset: number, length: number): void {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the mapping was disposed of');
    const end = offset + length;
    if (
      !Number.isSafeInteger(offset) ||
      !Number.isSafeInteger(length) ||
      offset < 0 ||
      length < 0 ||
      end > this.length
    ) {
      throw new RangeError(`bytes ${offset}..${end} are outside a mapping of ${this.length} bytes`);
    }
  }

  /**
   * A window over the memory itself (no copy), `length` bytes from `offset`, at most 1 GiB.
   * Blocks: making it never touches memory; using it may block (see the class).
   * After {@link dispose} the windows are detached: their length is 0. Where the runtime cannot
   * detach them, a window that is used after `dispose` crashes the process.
   * Errors: CLOSED; RangeError.
   */
  bytes(offset = 0, length = this.length - offset): Uint8Array {
    this.#check(offset, length);
    if (length > WINDOW_LIMIT)
      throw new RangeError(`a window of ${length} bytes is longer than ${WINDOW_LIMIT}`);
    if (length === 0) return new Uint8Array(0);
    return this.#windows.bytes(offset, length);
  }

  /**
   * A second mapping of the same memory file, for filling pages out of sight of a userfaultfd on
   * this one. It has its own duplicate of the descriptor and its own life.
   * Errors: NOT_SUPPORTED for private memory; CLOSED; as {@link mapMemory}.
   */
  alias(): Mapping {
    this.#check(0, 0);
    if (this.#fd === undefined)
      throw new DemandPagingError('NOT_SUPPORTED', `${this.kind} memory has no second mapping`);
    const fd = duplicate(this.#fd);
    const flags = MAP.SHARED | MAP.NORESERVE;
    const address = raw.mmap(0, this.length, PROT.READ | PROT.WRITE, flags, fd, 0);
    if (address < 0) {
      raw.close(fd);
      throw systemError('mmap', -address, `cannot map ${this.length} bytes a second time`);
    }
    const { kind, length } = this;
    const alias = new Mapping({ kind, address, length, pageSize: this.pageSize, fd, owned: true });
    alias.advise('DONTFORK');
    return alias;
  }

  /**
   * madvise(2) over part of the mapping. DONTNEED and REMOVE on memory with EVENT_REMOVE wait until
   * the event has been read from the userfaultfd: never call them from the thread that reads it.
   * Errors: KERNEL with errno (EINVAL: not for this memory; EFAULT: populate met a bad page).
   */
  advise(advice: Advice, offset = 0, length = this.length - offset): void {
    this.#check(offset, length);
    check(raw.madvise(this.address + offset, length, MADV[advice]), 'madvise', `cannot advise ${advice}`, {
      range: { start: BigInt(this.address + offset), length: BigInt(length) },
    });
  }

  /** mprotect(2) over part of the mapping. Errors: KERNEL with errno (ENOMEM: too many mappings). */
  protect(protection: number, offset = 0, length = this.length - offset): void {
    this.#check(offset, length);
    check(
      raw.mprotect(this.address + offset, length, protection),
      'mprotect',
      'cannot change the protection',
    );
  }

  /**
   * Frees the pages of the memory file behind `offset` in every mapping; they read as zeros, or
   * fault as missing where registered. It raises no REMOVE event on any userfaultfd.
   * Errors: NOT_SUPPORTED for private memory; KERNEL with errno. Source: fallocate(2).
   */
  punchHole(offset = 0, length = this.length - offset): void {
    this.#check(offset, length);
    if (this.#fd === undefined)
      throw new DemandPagingError('NOT_SUPPORTED', `${this.kind} memory has no file to punch`);
    const mode = FALLOC.PUNCH_HOLE | FALLOC.KEEP_SIZE;
    check(raw.fallocate(this.#fd, mode, offset, length), 'fallocate', 'cannot punch a hole');
  }

  /** 1 for each base page that is resident, 0 for the others. Source: mincore(2). */
  residency(offset = 0, length = this.length - offset): Uint8Array {
    this.#check(offset, length);
    return residentPages(this.address + offset, length);
  }

  /**
   * Moves or resizes the mapping (mremap(2)) and returns the new one; this one is closed, its
   * windows detached. With EVENT_REMAP it waits until the event has been read.
   * Errors: CLOSED; NOT_SUPPORTED for a borrowed mapping; BAD_ALIGNMENT; KERNEL with errno.
   */
  remap(options: { readonly length?: number; readonly to?: number } = {}): Mapping {
    this.#check(0, 0);
    if (!this.#owned) throw new DemandPagingError('NOT_SUPPORTED', 'a borrowed mapping cannot be moved');
    const length = options.length ?? this.length;
    checkLength(length, this.pageSize);
    const flags = MREMAP.MAYMOVE | (options.to === undefined ? 0 : MREMAP.FIXED);
    const moved = raw.mremap(this.address, this.length, length, flags, options.to ?? 0);
    const address = check(moved, 'mremap', `cannot move ${this.length} bytes`);
    const next = new Mapping({ ...this.token, address, length, owned: true });
    this.#windows.detach();
    this.#closed = true;
    this.#fd = undefined;
    return next;
  }

  /**
   * Ends the windows, unmaps and closes the memory file; idempotent. With EVENT_UNMAP it waits until
   * the event has been read: not from the thread that reads it. Other threads must be done with the
   * memory: an access of theirs after this is a segmentation fault.
   */
  dispose(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#windows.detach();
    if (!this.#owned) return;
    const result = raw.munmap(this.address, this.length);
    if (this.#fd !== undefined) raw.close(this.#fd);
    this.#fd = undefined;
    check(result, 'munmap', 'cannot unmap');
  }

  [Symbol.dispose](): void {
    this.dispose();
  }
}
