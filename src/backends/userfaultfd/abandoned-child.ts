import { DemandPagingError } from '../../api/error.js';
import { ERRNO, Poller, raw, setNonBlocking, systemError, UffdPort } from '../../linux/index.js';
import { AddressMap, type Segment } from './address-map.js';

/** How often a child may move its memory before it is given up. */
const MOST_MOVES = 1000;
/** How long a child may change its memory before it is given up, where nothing else gets on. */
const MOST_WAIT_MS = 10_000;
/** The end of a change is told nobody: how long to wait before it is tried again. */
const LOOK_MS = 1;

/**
 * Poisons what is missing in a forked child's copy of the memory, so that it fails loudly there instead of
 * waiting for ever or reading zeros, and closes the child's userfaultfd. What the child forks in turn is
 * treated alike; memory that it moves meanwhile is followed. The child's userfaultfd is made non-blocking:
 * the kernel makes it as the parent's was made, whatever has been set there since, and a blocking one, read
 * while the child has heard of its last event and not yet run, would wait for ever.
 *
 * `marks`: the memory may be write-protected. Protection of a page that is not there keeps poison away; it is
 * lifted, and would go with the descriptor anyway.
 *
 * Blocks: for one system call a page that is present in the child, or that it does not have; while the child
 * changes its memory, for 10 s at most. Errors: KERNEL, UNKNOWN_EVENT; then the descriptor stays open,
 * because closing it would let the child read zeros: its accesses wait until this process ends.
 */
export function abandon(fd: number, segments: readonly Segment[], marks: boolean): void {
  setNonBlocking(fd, true);
  const port = new UffdPort(fd, 1);
  const coming = new Poller([fd]);
  try {
    const memory = new AddressMap(segments);
    const child = { port, coming, memory, marks };
    for (let moves = 0; poisonAll(child) === 'moved'; moves++)
      if (moves === MOST_MOVES)
        throw new DemandPagingError('KERNEL', `a forked child moved its memory ${MOST_MOVES} times`);
    raw.close(fd);
  } finally {
    coming.close();
    port.close();
  }
}

interface Child {
  readonly port: UffdPort;
  readonly coming: Poller;
  readonly memory: AddressMap;
  readonly marks: boolean;
}

/** `moved`: some of the memory is elsewhere now, and has to be gone through again. */
function poisonAll(child: Child): 'done' | 'moved' {
  for (const segment of child.memory.segments) {
    const result = poisonMissing(child, segment);
    if (result === 'ended') return 'done';
    if (result === 'moved') return 'moved';
  }
  return 'done';
}

function poisonMissing(child: Child, { start, count, pageSize }: Segment): 'done' | 'moved' | 'ended' {
  const { port, coming, marks } = child;
  const length = count * pageSize;
  let since: number | undefined; // the child has been changing its memory
  let most = length;
  let lifted = -1;
  for (let done = 0; done < length;) {
    const asked = Math.min(most, length - done);
    const result = port.poison(start + done, asked);
    const progress = result === 0 ? asked : port.done;
    done += progress;
    if (result !== -ERRNO.EAGAIN || progress > 0) since = undefined;
    if (progress > 0) most *= 2;
    else if (result === -ERRNO.EEXIST && marks && lifted !== done) {
      if (port.writeprotect(start + done, pageSize, 0) !== -ERRNO.EAGAIN) lifted = done;
    } else if (result === -ERRNO.EEXIST) done += pageSize;
    // A range that leaves a mapping is refused as a whole; a page that is refused is not the child's.
    else if (result === -ERRNO.ENOENT && asked > pageSize)
      most = Math.max(pageSize, Math.floor(asked / 2 / pageSize) * pageSize);
    else if (result === -ERRNO.ENOENT) done += pageSize;
    else if (result === -ERRNO.ESRCH) return 'ended';
    else if (result === -ERRNO.EAGAIN && performance.now() - (since ??= performance.now()) < MOST_WAIT_MS) {
      // Memory changes from before the event to after the child has run on from it: there may be nothing to
      // read.
      if (coming.wait(LOOK_MS) > 0 && takeEvent(child)) return 'moved';
    } else throw systemError('ioctl UFFDIO_POISON', -result, "a child's missing pages cannot be poisoned");
  }
  return 'done';
}

/**
 * Reads what the child waits to have read; its own children are abandoned as well. Whether memory has moved.
 */
function takeEvent({ port, memory, marks }: Child): boolean {
  if (port.read() < 1) return false;
  const event = port.event(0);
  if (event.kind === 'fork') abandon(event.fd, memory.segments, marks);
  if (event.kind !== 'remap') return false;
  memory.moveBytes(event.from, event.to, event.length);
  return true;
}
