import { closeSync, openSync, readSync } from 'node:fs';
import { libc } from './ffi.js';
import { check, ERRNO, systemError } from './failure.js';
import { NativeBlock } from './native-block.js';
import { pageSize } from './page-size.js';

const PAGES_PER_CALL = 65536;

/**
 * 1 for each base page of `[address, address + length)` that is resident, 0 for the others.
 * For private memory that means "in this process's page tables", for a memory file "in the page
 * cache", whichever process put it there.
 * Preconditions: `address` is page-aligned. Blocks: never. Errors: KERNEL (ENOMEM: unmapped).
 * Source: mincore(2).
 */
export function residentPages(address: number, length: number): Uint8Array {
  const unit = pageSize();
  const pages = Math.ceil(length / unit);
  const result = new Uint8Array(pages);
  const vector = new NativeBlock(Math.min(pages, PAGES_PER_CALL));
  try {
    for (let first = 0; first < pages; first += PAGES_PER_CALL) {
      const count = Math.min(PAGES_PER_CALL, pages - first);
      const returned = libc().mincore(address + first * unit, count * unit, vector.address);
      check(returned === -1 ? -libc().errno() : 0, 'mincore', 'cannot ask for residency');
      for (let page = 0; page < count; page++) result[first + page] = vector.bytes[page]! & 1;
    }
  } finally {
    vector.free();
  }
  return result;
}

/** Bits 57, 61, 62 and 63 of an entry of /proc/PID/pagemap, in its high word. Source: pagemap.rst. */
export const PAGEMAP_HIGH = { uffdWp: 1 << 25, file: 1 << 29, swap: 1 << 30, present: 1 << 31 } as const;

/** One entry of /proc/self/pagemap. Source: pagemap.rst. */
export interface PagemapEntry {
  readonly present: boolean;
  readonly swapped: boolean;
  /** Backed by a file or shared anonymous memory. */
  readonly shared: boolean;
  /** Write-protected through a userfaultfd. */
  readonly writeProtected: boolean;
}

/**
 * Opens the page tables of a process (`/proc/PID/pagemap`). `process`: its number, or `self`. The caller closes it. Blocks:
 * never. Errors: NOT_SUPPORTED without /proc, NO_PERMISSION (EACCES, EPERM: it needs the rights of ptrace), MEMORY_GONE
 * (the process has ended), KERNEL (EMFILE). Source: pagemap.rst.
 */
export function openPagemap(process: number | 'self'): number {
  const path = `/proc/${process}/pagemap`;
  try {
    return openSync(path, 'r');
  } catch (cause) {
    const { errno = 0, syscall = 'open' } = cause as NodeJS.ErrnoException;
    const isSelf = process === 'self';
    throw systemError(syscall, -errno, `what memory holds cannot be told without ${path}`, {
      codes: { [ERRNO.ENOENT]: isSelf ? 'NOT_SUPPORTED' : 'MEMORY_GONE' },
      hint: isSelf
        ? errno === -ERRNO.ENOENT
          ? 'Mount /proc here (mount -t proc proc /proc), show it in the container, or have the pager map the memory'
          : 'A process that has changed its user is refused its own: prctl(2), PR_SET_DUMPABLE; or have the pager map the memory'
        : 'The page tables of another process are for those who may trace it (ptrace(2))',
    });
  }
}

/** The page table entries of `count` base pages from `address`. Blocks: never. Source: pagemap.rst. */
export function pagemap(address: number, count: number): PagemapEntry[] {
  const buffer = Buffer.alloc(count * 8);
  const fd = openPagemap('self');
  try {
    const read = readSync(fd, buffer, 0, buffer.length, (address / pageSize()) * 8);
    return Array.from({ length: read / 8 }, (_, page) => {
      const high = buffer.readUInt32LE(page * 8 + 4); // bits 32 to 63
      return {
        present: (high & PAGEMAP_HIGH.present) !== 0,
        swapped: (high & PAGEMAP_HIGH.swap) !== 0,
        shared: (high & PAGEMAP_HIGH.file) !== 0,
        writeProtected: (high & PAGEMAP_HIGH.uffdWp) !== 0,
      };
    });
  } finally {
    closeSync(fd);
  }
}
