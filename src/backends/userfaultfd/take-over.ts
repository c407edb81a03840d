import { readFileSync, readlinkSync } from 'node:fs';
import { hex } from '../../api/address.js';
import { DemandPagingError } from '../../api/error.js';
import { type Verb } from '../../api/resolution.js';
import { ERRNO, mapMemory, raw, systemError, UffdPort } from '../../linux/index.js';
import { isFiltered } from '../../linux/failure.js';
import { type Segment } from './address-map.js';
import { verbsOf } from './verb-mask.js';

const LINK = 'anon_inode:[userfaultfd]';
/** A bit of the features that the kernel sets with the handshake. Source: fs/userfaultfd.c. */
const INITIALIZED = 0x8000_0000n;

/**
 * Checks that a descriptor is a userfaultfd of a process that lives, and wakes whoever waits in the segments:
 * an access whose fault was read before faults anew. Nothing else of it is changed. Blocks: never. Errors:
 * BAD_DESCRIPTOR, BAD_RANGE, MEMORY_GONE, KERNEL.
 */
export function takeOver(fd: number, segments: readonly Segment[]): void {
  checkKind(fd);
  using port = new UffdPort(fd, 1);
  for (const { start, count, pageSize } of segments) {
    const length = count * pageSize;
    const result = port.wake(start, length);
    if (result < 0) throw refusal(fd, -result, start, length);
  }
  checkLives(port, segments);
  checkVerbs(port, segments);
}

/** Tries every verb that pages will be resolved by, on nothing (EINVAL), so that nothing is changed. */
function checkVerbs(port: UffdPort, segments: readonly Segment[]): void {
  for (const { start, verbs } of segments)
    for (const verb of verbsOf(verbs)) {
      const errno = -tryOnNothing(port, verb, start);
      if (isFiltered(errno))
        throw systemError(
          raw.failedCall(),
          errno,
          `the kernel does not ${verb} a page of the other process`,
          {
            hint: 'A seccomp filter of this process refuses it',
          },
        );
    }
}

function tryOnNothing(port: UffdPort, verb: Verb, start: number): number {
  switch (verb) {
    case 'copy':
      return port.copy(start, start, 0);
    case 'zeropage':
    case 'continue':
    case 'poison':
      return port[verb](start, 0);
    case 'writeprotect':
    case 'rwprotect':
      return port[verb](start, 0, 0);
    default:
      return 0; // waking was tried; the others are not for another process
  }
}

/** By its name in /proc, where there is one: reading or writing whatever it is would change it. */
function checkKind(fd: number): void {
  let link: string;
  try {
    link = readlinkSync(`/proc/self/fd/${fd}`);
  } catch {
    return; // not open, or no /proc: waking says which
  }
  if (link !== LINK)
    throw new DemandPagingError('BAD_DESCRIPTOR', `descriptor ${fd} is not a userfaultfd but ${link}`);
}

/** Why the kernel would not wake anybody. */
function refusal(fd: number, errno: number, start: number, length: number): DemandPagingError {
  const range = { start: BigInt(start), length: BigInt(length) };
  const details = { errno, syscall: 'ioctl UFFDIO_WAKE', range };
  if (errno === ERRNO.EBADF)
    return new DemandPagingError('BAD_DESCRIPTOR', `descriptor ${fd} is not open`, details);
  if (errno === ERRNO.ENOTTY)
    return new DemandPagingError('BAD_DESCRIPTOR', `descriptor ${fd} is not a userfaultfd`, details);
  if (errno !== ERRNO.EINVAL) return systemError(details.syscall, errno, 'nobody can be woken', { range });
  // Without its handshake it refuses everything.
  if (!hasShakenHands(fd)) {
    return new DemandPagingError('BAD_DESCRIPTOR', `userfaultfd ${fd} has had no handshake`, {
      ...details,
      hint: 'The process that made it must call UFFDIO_API, and register its memory, before it hands it over',
    });
  }
  const place = `${hex(start)}+${hex(length)}`;
  return new DemandPagingError('BAD_RANGE', `${place} are no addresses of the other process`, details);
}

function hasShakenHands(fd: number): boolean {
  try {
    const [, features] = /^API:\t[0-9a-f]+:([0-9a-f]+):/m.exec(
      readFileSync(`/proc/self/fdinfo/${fd}`, 'utf8'),
    )!;
    return (BigInt(`0x${features}`) & INITIALIZED) !== 0n;
  } catch {
    return true; // no /proc to ask
  }
}

/**
 * A process that has ended is told by a copy only (waking needs none): of contents that nobody can read, so
 * that nothing is ever installed.
 */
function checkLives(port: UffdPort, [segment]: readonly Segment[]): void {
  const { start, pageSize } = segment!;
  using nothing = mapMemory({ kind: 'reserved', length: pageSize });
  if (port.copy(start, nothing.address, pageSize) !== -ERRNO.ESRCH) return;
  throw new DemandPagingError('MEMORY_GONE', 'the process whose memory is to be served has ended', {
    errno: ERRNO.ESRCH,
    syscall: 'ioctl UFFDIO_COPY',
  });
}
