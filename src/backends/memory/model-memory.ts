import {
  type FaultKind,
  hasPageCache,
  type MemoryLayout,
  type PageIndex,
  type Region,
} from '../../api/index.js';
import { ERRNO } from './errno.js';

/** Bits of a page-table entry. */
const ENTRY = { mapped: 1, poison: 2, writeProtected: 4, rwProtected: 8, unmapped: 16 } as const;

/**
 * What bars an access: a fault that can be resolved, a positive errno with which it fails at once, or
 * nothing.
 */
export type Obstacle = FaultKind | number | undefined;

/** How pages are dropped: MADV_DONTNEED unmaps, MADV_REMOVE and hole punching empty the page cache, too. */
export type Discard = 'dontneed' | 'remove' | 'punch';

/**
 * The memory itself: page frames, the page table of the mapping that is watched, and for shared memory
 * the page cache behind it, which a second mapping reaches without the first one noticing.
 *
 * It knows contents and page-table entries, not who waits: verbs return 0 or a positive errno, as the
 * kernel's do. Anonymous memory has a frame exactly where it is mapped; a frame of shared memory is in
 * the page cache whether the watched mapping maps it or not.
 */
export class ModelMemory {
  readonly layout: MemoryLayout;
  readonly #frames: (Uint8Array | undefined)[] = [];
  #entries = new Uint8Array(0);
  #shared = new Uint8Array(0);
  #sizes = new Uint32Array(0);
  readonly #minor: boolean;

  /** `minor`: whether a page that is cached and not mapped faults, or is mapped without a word. */
  constructor(layout: MemoryLayout, minor: boolean) {
    this.layout = layout;
    this.#minor = minor;
    this.extend(layout.regions);
  }

  /** Memory for further regions, numbered behind all others; every page is missing. */
  extend(regions: readonly Region[]): void {
    const pages = Math.max(...regions.map(({ firstPage, pageCount }) => firstPage + pageCount));
    for (let page = this.#frames.length; page < pages; page++) this.#frames.push(undefined);
    this.#entries = longer(this.#entries, new Uint8Array(pages));
    this.#shared = longer(this.#shared, new Uint8Array(pages));
    this.#sizes = longer(this.#sizes, new Uint32Array(pages));
    for (const { firstPage, pageCount, pageSize, memory } of regions) {
      this.#sizes.fill(pageSize, firstPage, firstPage + pageCount);
      if (hasPageCache(memory)) this.#shared.fill(1, firstPage, firstPage + pageCount);
    }
  }

  pageSize(page: PageIndex): number {
    return this.#sizes[page]!;
  }

  /** Whether the watched mapping maps the page. */
  isMapped(page: PageIndex): boolean {
    return (this.#entries[page]! & ENTRY.mapped) !== 0;
  }

  /** Whether there is a page at all: mapped, or in the page cache. */
  isResident(page: PageIndex): boolean {
    return this.#frames[page] !== undefined;
  }

  /** What bars an access through the watched mapping. */
  obstacle(page: PageIndex, write: boolean): Obstacle {
    const entry = this.#entries[page]!;
    if (entry & ENTRY.unmapped) return ERRNO.EFAULT;
    if (entry & ENTRY.poison) return ERRNO.EHWPOISON;
    if (!(entry & ENTRY.mapped)) {
      if (this.#frames[page] === undefined) return 'missing';
      if (this.#minor) return 'minor';
    } else if (entry & ENTRY.rwProtected) return 'rwp';
    return write && entry & ENTRY.writeProtected ? 'write-protect' : undefined;
  }

  /**
   * The frame that an access through the watched mapping reaches, or a positive errno. A page that is
   * not there comes into being as zeros: what memory does that nobody watches.
   */
  reach(page: PageIndex): Uint8Array | number {
    const entry = this.#entries[page]!;
    if (entry & ENTRY.unmapped) return ERRNO.EFAULT;
    if (entry & ENTRY.poison) return ERRNO.EHWPOISON;
    this.#entries[page] = entry | ENTRY.mapped;
    return (this.#frames[page] ??= new Uint8Array(this.#sizes[page]!));
  }

  /**
   * The frame that a second mapping of the same file reaches: a page that is not cached comes into
   * being as zeros, and the watched mapping learns nothing. EINVAL for memory that has no second mapping.
   */
  reachSecond(page: PageIndex): Uint8Array | number {
    if (!this.#shared[page]) return ERRNO.EINVAL;
    return (this.#frames[page] ??= new Uint8Array(this.#sizes[page]!));
  }

  /** The frame that is mapped, if any: what {@link RawMemory} looks at. */
  mappedFrame(page: PageIndex): Uint8Array | undefined {
    return this.isMapped(page) ? this.#frames[page] : undefined;
  }

  /**
   * UFFDIO_COPY: a page with these contents, at once or not at all. As in the kernel (measured on 6.18)
   * it overwrites a poison marker without a word: that poison lasts is up to whoever copies.
   */
  install(page: PageIndex, bytes: Uint8Array, protect: boolean): number {
    const entry = this.#entries[page]!;
    if (entry & ENTRY.unmapped) return ERRNO.ENOENT;
    if (entry & ENTRY.mapped || this.#frames[page] !== undefined) return ERRNO.EEXIST;
    this.#frames[page] = bytes.slice();
    this.#entries[page] = ENTRY.mapped | (protect ? ENTRY.writeProtected : 0);
    return 0;
  }

  /**
   * A page goes into the page cache, whether this mapping of the file maps the place or not; mapped there, it
   * is seen. EEXIST where one is.
   */
  insert(page: PageIndex, bytes: Uint8Array): number {
    if (!(this.#entries[page]! & ENTRY.unmapped)) return this.install(page, bytes, false);
    if (this.#frames[page] !== undefined) return ERRNO.EEXIST;
    this.#frames[page] = bytes.slice();
    return 0;
  }

  /** UFFDIO_ZEROPAGE: there is no huge zero page, and on anonymous memory poison is in its way. */
  zero(page: PageIndex): number {
    if (this.layout.regionOf(page).memory === 'hugetlb') return ERRNO.EINVAL;
    if (!this.#shared[page] && this.#entries[page]! & ENTRY.poison) return ERRNO.EEXIST;
    return this.install(page, new Uint8Array(this.#sizes[page]!), false);
  }

  /** UFFDIO_MOVE: only for private anonymous memory; poison is in its way. */
  move(page: PageIndex, bytes: Uint8Array): number {
    if (this.#shared[page]) return ERRNO.EINVAL;
    if (this.#entries[page]! & ENTRY.poison) return ERRNO.EEXIST;
    const errno = this.install(page, bytes, false);
    if (errno === 0) bytes.fill(0);
    return errno;
  }

  /**
   * Whether the page table has something here: a page, or poison. Who fills the page cache leaves it alone.
   */
  isTaken(page: PageIndex): boolean {
    return (this.#entries[page]! & (ENTRY.mapped | ENTRY.poison)) !== 0;
  }

  /**
   * A write into the page cache, which the watched mapping does not see: pwrite(2) on the file. EINVAL for
   * private memory.
   */
  fill(page: PageIndex, bytes: Uint8Array): number {
    if (!this.#shared[page]) return ERRNO.EINVAL;
    (this.#frames[page] ??= new Uint8Array(bytes.length)).set(bytes);
    return 0;
  }

  /**
   * UFFDIO_CONTINUE: maps what the page cache has. As in the kernel, a poison marker is overwritten without a
   * word.
   */
  continue(page: PageIndex, protect: boolean): number {
    const entry = this.#entries[page]!;
    if (!this.#shared[page]) return ERRNO.EINVAL;
    if (entry & ENTRY.unmapped) return ERRNO.ENOENT;
    if (entry & ENTRY.mapped) return ERRNO.EEXIST;
    if (this.#frames[page] === undefined) return ERRNO.EFAULT;
    this.#entries[page] = ENTRY.mapped | (protect ? ENTRY.writeProtected : 0);
    return 0;
  }

  /** UFFDIO_POISON: a marker where nothing is mapped, nor another marker. */
  poison(page: PageIndex): number {
    const entry = this.#entries[page]!;
    if (entry & ENTRY.unmapped) return ERRNO.ENOENT;
    if (entry !== 0) return ERRNO.EEXIST;
    this.#entries[page] = ENTRY.poison;
    return 0;
  }

  /**
   * UFFDIO_WRITEPROTECT and RWPROTECT: pages that are not mapped are passed over. But of shared memory the
   * first leaves a marker there, unless poison is: who maps the page from the page cache finds it protected.
   */
  protect(page: PageIndex, verb: 'writeprotect' | 'rwprotect', on: boolean): number {
    const entry = this.#entries[page]!;
    if (entry & ENTRY.unmapped) return ERRNO.ENOENT;
    const bit = verb === 'writeprotect' ? ENTRY.writeProtected : ENTRY.rwProtected;
    const marks = verb === 'writeprotect' && this.#shared[page]! && !(entry & ENTRY.poison);
    if (entry & ENTRY.mapped || marks) this.#entries[page] = on ? entry | bit : entry & ~bit;
    return 0;
  }

  /**
   * Discards a page; an accessor that holds the old frame keeps it. Poison goes with MADV_DONTNEED, while
   * emptying the page cache leaves a marker where it is; that a page of shared memory is write-protected
   * outlasts both (measured on 6.18).
   */
  drop(page: PageIndex, how: Discard): void {
    const entry = this.#entries[page]!;
    if (entry & ENTRY.unmapped) return;
    const kept = this.#shared[page] ? ENTRY.writeProtected : 0;
    this.#entries[page] = entry & (how === 'dontneed' ? kept : kept | ENTRY.poison);
    if (!this.#shared[page] || how !== 'dontneed') this.#frames[page] = undefined;
  }

  /** munmap(2): nothing can be reached or installed here any more. */
  unmap(page: PageIndex): void {
    this.#entries[page] = ENTRY.unmapped;
    if (!this.#shared[page]) this.#frames[page] = undefined;
  }

  /** fork(2): private pages are copied, shared ones are the same frames. */
  clone(): ModelMemory {
    const child = new ModelMemory(this.layout, this.#minor);
    child.#entries.set(this.#entries);
    for (let page = 0; page < this.#frames.length; page++) {
      child.#frames[page] = this.#shared[page] ? this.#frames[page] : this.#frames[page]?.slice();
    }
    return child;
  }
}

function longer<T extends Uint8Array | Uint32Array>(from: T, into: T): T {
  into.set(from);
  return into;
}
