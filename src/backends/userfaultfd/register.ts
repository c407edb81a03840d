import { hex } from '../../api/address.js';
import { DemandPagingError } from '../../api/error.js';
import { ERRNO, Userfaultfd } from '../../linux/index.js';
import { type Segment } from './address-map.js';
import { isMapped } from './region-memory.js';
import { verbMask, verbsOf } from './verb-mask.js';

/**
 * Registers one segment; the verbs that work on it. Errors: as {@link Userfaultfd.register}, BAD_RANGE for a
 * hole: the kernel says EINVAL for it, too.
 */
export function registerSegment(uffd: Userfaultfd, segment: Segment, mode: number): number {
  const { start, count, pageSize, memory } = segment;
  const length = count * pageSize;
  try {
    return verbMask(uffd.register(start, length, mode), uffd.enabled, memory);
  } catch (error) {
    if (!(error instanceof DemandPagingError) || error.errno !== ERRNO.EINVAL || isMapped(start, length))
      throw error;
    const { errno, syscall, range } = error;
    throw new DemandPagingError('BAD_RANGE', `not all of ${hex(start)}+${hex(length)} is mapped`, {
      errno,
      syscall,
      range,
    });
  }
}

/**
 * Registers segments of a pager that runs, all or none. Errors: as {@link registerSegment}; NOT_SUPPORTED
 * where one lacks a verb of its own list.
 */
export function register(fd: number, segments: readonly Segment[], mode: number, features: number): void {
  const uffd = Userfaultfd.adopt(fd, features, 1);
  const undo: (() => void)[] = [];
  try {
    for (const segment of segments) {
      const { start, count, pageSize, verbs } = segment;
      const found = registerSegment(uffd, segment, mode);
      undo.push(() => void uffd.port.unregister(start, count * pageSize));
      if ((verbs & ~found) === 0) continue;
      const lacking = verbsOf(verbs & ~found).join(', ');
      throw new DemandPagingError('NOT_SUPPORTED', `the memory at ${hex(start)} does not take ${lacking}`);
    }
  } catch (error) {
    for (const step of undo) step();
    throw error;
  } finally {
    uffd.port.close(); // the descriptor is the attachment's
  }
}
