import { ERRNO, raw, systemError, UffdPort } from '../../linux/index.js';
import { type Segment } from './address-map.js';

/** How often a child that keeps changing is tried before it is given up. */
const TRIES = 1000;

/**
 * Poisons what is missing in a forked child's copy of the memory, so that it fails loudly there instead of
 * waiting for ever or reading zeros, and closes the child's userfaultfd. What the child forks in turn
 * is treated alike. Blocks: for one system call a present page. Errors: KERNEL.
 */
export function abandon(fd: number, segments: readonly Segment[]): void {
  const child = new UffdPort(fd, 1);
  try {
    for (const { start, count, pageSize } of segments) {
      if (!poisonMissing(child, start, count * pageSize, pageSize, segments)) return; // the child has ended
    }
  } finally {
    child.close();
    raw.close(fd);
  }
}

/** False: there is no child any more. */
function poisonMissing(
  child: UffdPort,
  start: number,
  length: number,
  pageSize: number,
  segments: readonly Segment[],
): boolean {
  let tries = 0;
  for (let done = 0; done < length;) {
    const result = child.poison(start + done, length - done);
    if (result === 0) return true;
    done += child.done;
    if (child.done > 0) tries = 0;
    else if (result === -ERRNO.EEXIST) done += pageSize;
    else if (result === -ERRNO.ENOENT)
      return true; // not its memory: another shard's, or unmapped
    else if (result === -ERRNO.ESRCH) return false;
    else if (result === -ERRNO.EAGAIN && ++tries < TRIES) takeEvent(child, segments);
    else throw systemError('ioctl UFFDIO_POISON', -result, "a child's missing pages cannot be poisoned");
  }
  return true;
}

/** Reads what the child waits to have read; its own children are abandoned as well. */
function takeEvent(child: UffdPort, segments: readonly Segment[]): void {
  if (child.read() < 1) return;
  const event = child.event(0);
  if (event.kind === 'fork') abandon(event.fd, segments);
}
