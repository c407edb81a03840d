import { fstatSync, type Stats } from 'node:fs';
import { DemandPagingError } from '../api/error.js';
import { systemError } from './failure.js';

/**
 * Bytes of a regular file; Infinity for a device, which reports no size. Errors: KERNEL (EBADF).
 */
function sizeOf(fd: number): number {
  let stats: Stats;
  try {
    stats = fstatSync(fd);
  } catch (error) {
    const { errno = 0 } = error as NodeJS.ErrnoException;
    throw systemError('fstat', Math.abs(errno), `descriptor ${fd} is no memory file`);
  }
  return stats.isFile() ? stats.size : Infinity;
}

/**
 * Refuses a memory file that ends before its region: an access beyond the end of the file ends the process by
 * SIGBUS.
 * Blocks: never. Errors: BAD_RANGE, KERNEL (EBADF). Units: bytes. Source: fstat(2), mmap(2).
 */
export function checkFileHolds(fd: number, offset: number, length: number): void {
  const size = sizeOf(fd);
  if (offset + length <= size) return;
  throw new DemandPagingError(
    'BAD_RANGE',
    `a region of ${length} bytes from offset ${offset} of its memory file ends beyond the file's ${size} bytes`,
    { hint: 'Make the file as long as it is mapped (ftruncate) before it is paged' },
  );
}

/**
 * Whether a file ends before `end`, as one that was truncated does; false of what is no open descriptor.
 * Blocks: never.
 */
export function fileEndsBefore(fd: number, end: number): boolean {
  try {
    return sizeOf(fd) < end;
  } catch {
    return false;
  }
}
