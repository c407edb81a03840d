import { ERRNO, raw, systemError, UffdPort } from '../../linux/index.js';
import { AddressMap, type Segment } from './address-map.js';

/** How often a child that keeps changing is tried before it is given up. */
const TRIES = 1000;

/**
 * Poisons what is missing in a forked child's copy of the memory, so that it fails loudly there instead of
 * waiting for ever or reading zeros, and closes the child's userfaultfd. What the child forks in turn is treated
 * alike; memory that it moves meanwhile is followed.
 *
 * Blocks: for one system call a page that is present in the child, or that it does not have. Errors: KERNEL,
 * UNKNOWN_EVENT; then the descriptor stays open, because closing it would let the child read zeros: its
 * accesses wait until this process ends.
 */
export function abandon(fd: number, segments: readonly Segment[]): void {
  const child = new UffdPort(fd, 1);
  try {
    const memory = new AddressMap(segments);
    while (poisonAll(child, memory) === 'moved');
    raw.close(fd);
  } finally {
    child.close();
  }
}

/** `moved`: some of the memory is elsewhere now, and has to be gone through again. */
function poisonAll(child: UffdPort, memory: AddressMap): 'done' | 'moved' {
  for (const segment of memory.segments) {
    const result = poisonMissing(child, segment, memory);
    if (result === 'ended') return 'done';
    if (result === 'moved') return 'moved';
  }
  return 'done';
}

function poisonMissing(
  child: UffdPort,
  { start, count, pageSize }: Segment,
  memory: AddressMap,
): 'done' | 'moved' | 'ended' {
  const length = count * pageSize;
  let tries = 0;
  let most = length;
  for (let done = 0; done < length;) {
    const asked = Math.min(most, length - done);
    const result = child.poison(start + done, asked);
    const progress = result === 0 ? asked : child.done;
    done += progress;
    if (progress > 0) {
      tries = 0;
      most *= 2;
    } else if (result === -ERRNO.EEXIST) done += pageSize;
    // A range that leaves a mapping is refused as a whole; a page that is refused is not the child's.
    else if (result === -ERRNO.ENOENT && asked > pageSize)
      most = Math.max(pageSize, Math.floor(asked / 2 / pageSize) * pageSize);
    else if (result === -ERRNO.ENOENT) done += pageSize;
    else if (result === -ERRNO.ESRCH) return 'ended';
    else if (result === -ERRNO.EAGAIN && ++tries < TRIES) {
      if (takeEvent(child, memory)) return 'moved';
    } else throw systemError('ioctl UFFDIO_POISON', -result, "a child's missing pages cannot be poisoned");
  }
  return 'done';
}

/** Reads what the child waits to have read; its own children are abandoned as well. Whether memory has moved. */
function takeEvent(child: UffdPort, memory: AddressMap): boolean {
  if (child.read() < 1) return false;
  const event = child.event(0);
  if (event.kind === 'fork') abandon(event.fd, memory.segments);
  if (event.kind !== 'remap') return false;
  memory.moveBytes(event.from, event.to, event.length);
  return true;
}
