import { type Gpa, gpa } from '../../api/address.js';
import { type RawMemory } from '../../api/backend.js';
import { DemandPagingError } from '../../api/error.js';
import { type MemoryLayout } from '../../api/layout.js';
import {
  copyMemory,
  ERRNO,
  isUnreachable,
  NativeBlock,
  pagemap,
  OWN_MEMORY_HINT,
  pageSize,
  raw,
  readMemory,
  systemError,
  writeMemory,
} from '../../linux/index.js';
import { type AddressMap } from './address-map.js';

const BOUNCE_BYTES = 0x4_0000;

/**
 * Copies `bytes` between host memory and the caller's array at `offset`, through `bounce`: how many were, or
 * `-errno`.
 */
type Copy = (host: number, bytes: number, offset: number, bounce: NativeBlock) => number;

/**
 * Local guest memory, copied by the kernel (process_vm_readv(2) on this process), so that an unavailable page
 * is an error and does not end the process: a poisoned page is PAGE_POISONED, a missing one PAGE_MISSING
 * where missing pages fail (SIGBUS mode). Elsewhere a missing page blocks.
 *
 * Of a user-mode-only userfaultfd that way would always fail: there the bytes are touched directly, a
 * missing page blocks, and a poisoned one ends the process.
 */
export class LocalMemory implements RawMemory {
  readonly #layout: MemoryLayout;
  readonly #map: AddressMap;
  readonly #direct: boolean;
  readonly #missingFails: boolean;
  #bounce: NativeBlock | undefined;
  #closed = false;

  /** `missingFails`: an access to a missing page fails, and does not wait. */
  constructor(layout: MemoryLayout, map: AddressMap, direct: boolean, missingFails: boolean) {
    this.#layout = layout;
    this.#map = map;
    this.#direct = direct;
    this.#missingFails = missingFails;
  }

  load(address: Gpa, into: Uint8Array): void {
    this.#pieces(address, into.length, (host, bytes, offset, bounce) => {
      const done = this.#direct
        ? (copyMemory(bounce.address, host, bytes), bytes)
        : readMemory(bounce.address, host, bytes);
      if (done > 0) into.set(bounce.bytes.subarray(0, done), offset);
      return done;
    });
  }

  store(address: Gpa, from: Uint8Array): void {
    this.#pieces(address, from.length, (host, bytes, offset, bounce) => {
      bounce.bytes.set(from.subarray(offset, offset + bytes));
      return this.#direct
        ? (copyMemory(host, bounce.address, bytes), bytes)
        : writeMemory(host, bounce.address, bytes);
    });
  }

  close(): void {
    this.#closed = true;
    this.#bounce?.free();
    this.#bounce = undefined;
  }

  /**
   * Goes through a guest-physical range in pieces that lie together in host memory. Nothing is copied if part
   * of it is no memory.
   */
  #pieces(address: Gpa, length: number, copy: Copy): void {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the attachment was closed');
    if (length === 0) return;
    let region = this.#layout.regionAt(address);
    if (!region || address + BigInt(length) > region.gpa + region.length) {
      this.#layout.pagesOf({ start: address, length: BigInt(length) }); // BAD_RANGE for a byte outside every region
    }
    const bounce = (this.#bounce ??= new NativeBlock(BOUNCE_BYTES));
    let into = Number(address - region!.gpa); // where in the region
    for (let offset = 0; offset < length;) {
      if (into === Number(region!.length)) {
        region = this.#layout.regionAt(gpa(region!.gpa + region!.length));
        into = 0;
      }
      const { firstPage, pageSize: size } = region!;
      const page = firstPage + Math.floor(into / size);
      const segment = this.#map.at(page);
      if (!segment) throw unmapped(page, gpa(region!.gpa + BigInt(into)));
      const host = segment.start + (page - segment.page) * size + (into % size);
      const left = segment.start + segment.count * size - host; // a segment is of one region
      const bytes = Math.min(length - offset, left, BOUNCE_BYTES);
      const done = copy(host, bytes, offset, bounce);
      if (done <= 0) throw this.#failure(done, gpa(region!.gpa + BigInt(into)), host);
      offset += done;
      into += done;
    }
  }

  #failure(result: number, at: Gpa, host: number): DemandPagingError {
    const range = { start: at, length: 1n };
    const call = raw.failedCall();
    if (!isUnreachable(result))
      return systemError(call, -result, 'guest memory cannot be reached', {
        range,
        hint: OWN_MEMORY_HINT,
      });
    const poisoned = result === -ERRNO.EHWPOISON || this.#isPoisoned(host);
    const [code, message] = poisoned
      ? (['PAGE_POISONED', 'the page is poisoned'] as const)
      : (['PAGE_MISSING', 'the page is missing'] as const);
    return new DemandPagingError(code, message, { errno: -result, syscall: call, range });
  }

  /**
   * A poison marker is a swap entry that no access brings back. Without /proc: what fails is poisoned where a
   * missing page blocks.
   */
  #isPoisoned(host: number): boolean {
    try {
      const entry = pagemap(host - (host % pageSize()), 1)[0];
      return entry !== undefined && !entry.present && entry.swapped && !entry.writeProtected;
    } catch {
      return !this.#missingFails;
    }
  }
}

function unmapped(page: number, start: Gpa): DemandPagingError {
  return new DemandPagingError('MEMORY_GONE', `page ${page} is not mapped any more`, {
    range: { start, length: 1n },
  });
}
