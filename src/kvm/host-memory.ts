import { type Gpa } from '../api/address.js';
import { type RawMemory } from '../api/backend.js';
import { DemandPagingError } from '../api/error.js';
import { type MemoryLayout } from '../api/layout.js';
import {
  isUnreachable,
  NativeBlock,
  OWN_MEMORY_HINT,
  raw,
  readMemory,
  systemError,
  writeMemory,
} from '../linux/index.js';
import { type SharedVcpuState } from './shared-vcpu-state.js';
import { regionOf, type SlotRegion } from './slot-region.js';

const BOUNCE_BYTES = 0x4_0000;

/**
 * Guest memory as the VMM accesses it, copied by the kernel (process_vm_readv(2) on this process), so that an
 * unavailable page is an error and does not end the process. With a userfaultfd an access to a missing page
 * blocks; without one, where only vCPUs are stopped, it is refused here, since the mapping would read as
 * zeros.
 */
export class HostMemory implements RawMemory {
  readonly #layout: MemoryLayout;
  readonly #regions: readonly SlotRegion[];
  readonly #shared: SharedVcpuState;
  readonly #blocks: boolean;
  #bounce: NativeBlock | undefined;
  #closed = false;

  constructor(
    layout: MemoryLayout,
    regions: readonly SlotRegion[],
    shared: SharedVcpuState,
    blocks: boolean,
  ) {
    this.#layout = layout;
    this.#regions = regions;
    this.#shared = shared;
    this.#blocks = blocks;
  }

  load(address: Gpa, into: Uint8Array): void {
    this.#pieces(address, into.length, (host, bytes, offset, bounce) => {
      const done = readMemory(bounce.address, host, bytes);
      if (done > 0) into.set(bounce.bytes.subarray(0, done), offset);
      return done;
    });
  }

  store(address: Gpa, from: Uint8Array): void {
    this.#pieces(address, from.length, (host, bytes, offset, bounce) => {
      bounce.bytes.set(from.subarray(offset, offset + bytes));
      return writeMemory(host, bounce.address, bytes);
    });
  }

  close(): void {
    this.#closed = true;
    this.#bounce?.free();
    this.#bounce = undefined;
  }

  #pieces(
    address: Gpa,
    length: number,
    copy: (host: number, bytes: number, offset: number, bounce: NativeBlock) => number,
  ): void {
    if (this.#closed) throw new DemandPagingError('CLOSED', 'the attachment was closed');
    if (length === 0) return;
    this.#layout.pagesOf({ start: address, length: BigInt(length) }); // throws BAD_RANGE
    const bounce = (this.#bounce ??= new NativeBlock(BOUNCE_BYTES));
    for (let offset = 0; offset < length;) {
      const at = (address + BigInt(offset)) as Gpa;
      const page = this.#layout.pageAt(at)!;
      const region = regionOf(this.#regions, page)!;
      const inRegion = Number(at) - region.gpa;
      const bytes = Math.min(length - offset, region.pageSize - (inRegion % region.pageSize), BOUNCE_BYTES);
      if (this.#shared.has('poisoned', page)) throw failure('PAGE_POISONED', at);
      if (!this.#blocks && !this.#shared.has('populated', page)) throw failure('PAGE_MISSING', at);
      const done = copy(region.address + inRegion, bytes, offset, bounce);
      if (isUnreachable(done)) throw failure('PAGE_POISONED', at);
      if (done <= 0) {
        throw systemError(raw.failedCall(), -done, 'guest memory cannot be reached', {
          hint: OWN_MEMORY_HINT,
        });
      }
      offset += done;
    }
  }
}

const failure = (code: 'PAGE_POISONED' | 'PAGE_MISSING', at: Gpa): DemandPagingError =>
  new DemandPagingError(code, `the page is ${code === 'PAGE_MISSING' ? 'missing' : 'poisoned'}`, {
    range: { start: at, length: 1n },
  });
