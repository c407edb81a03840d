import { DemandPagingError } from '../api/error.js';
import { load64 } from './native-block.js';
import { UFFD_EVENT, UFFD_MSG_BYTES, UFFD_PAGEFAULT_FLAG } from './userfaultfd-abi.js';

/** What a fault is about. `rwp` needs Linux 7.3. */
export type UffdFaultKind = 'missing' | 'minor' | 'write-protect' | 'rwp';

/**
 * A message of a userfaultfd, in the kernel's terms. Addresses are exact numbers (below 2^52).
 * `address` of a fault is rounded down to the page, unless EXACT_ADDRESS was negotiated.
 */
export type UffdEvent =
  | {
      readonly kind: 'fault';
      readonly fault: UffdFaultKind;
      readonly write: boolean;
      readonly address: number;
      /** Thread id where THREAD_ID was negotiated, else 0. */
      readonly thread: number;
      readonly flags: number;
    }
  /** `fd` is a new userfaultfd for the child's memory; the reader of the event owns it. */
  | { readonly kind: 'fork'; readonly fd: number }
  | { readonly kind: 'remap'; readonly from: number; readonly to: number; readonly length: number }
  | { readonly kind: 'remove'; readonly start: number; readonly end: number }
  | { readonly kind: 'unmap'; readonly start: number; readonly end: number };

/** 32-bit words per message. */
export const UFFD_MSG_WORDS = UFFD_MSG_BYTES / 4;

type EventNumber = (typeof UFFD_EVENT)[keyof typeof UFFD_EVENT];

const { WP, MINOR, RWP, WRITE } = UFFD_PAGEFAULT_FLAG;

/** The kind of fault that `flags` of a message say. */
export function faultKind(flags: number): UffdFaultKind {
  if ((flags & (WP | MINOR | RWP)) === 0) return 'missing';
  if (flags & MINOR) return 'minor';
  return flags & RWP ? 'rwp' : 'write-protect';
}

/**
 * Decodes message `index` of a buffer of messages, given as 32-bit words.
 * A plain switch: this runs once per fault, where a pattern match costs fifty times as much.
 * Errors: UNKNOWN_EVENT, with the event's number. Source: struct uffd_msg, ioctl_userfaultfd(2).
 */
export function decodeUffdEvent(words: Uint32Array, index: number): UffdEvent {
  const at = index * UFFD_MSG_WORDS;
  const event = (words[at]! & 0xff) as EventNumber;
  switch (event) {
    case UFFD_EVENT.PAGEFAULT: {
      const flags = words[at + 2]!;
      const write = (flags & WRITE) !== 0;
      const address = load64(words, at + 4);
      return { kind: 'fault', fault: faultKind(flags), write, address, thread: words[at + 6]!, flags };
    }
    case UFFD_EVENT.FORK:
      return { kind: 'fork', fd: words[at + 2]! | 0 };
    case UFFD_EVENT.REMAP: {
      const [from, to, length] = [load64(words, at + 2), load64(words, at + 4), load64(words, at + 6)];
      return { kind: 'remap', from, to, length };
    }
    case UFFD_EVENT.REMOVE:
      return { kind: 'remove', start: load64(words, at + 2), end: load64(words, at + 4) };
    case UFFD_EVENT.UNMAP:
      return { kind: 'unmap', start: load64(words, at + 2), end: load64(words, at + 4) };
    default:
      return unknownEvent(event);
  }
}

function unknownEvent(event: never): never {
  throw new DemandPagingError('UNKNOWN_EVENT', `userfaultfd event 0x${Number(event).toString(16)}`, {
    hint: 'The kernel is newer than this library, or the descriptor is not a userfaultfd',
  });
}
