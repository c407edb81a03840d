import { type MessagePort } from 'node:worker_threads';
import { type PageRange } from '../api/address.js';
import { type PlainError } from '../api/error.js';
import { type MemoryKind } from '../api/layout.js';
import { type VerificationPlace } from './slot-verification.js';
import { type SharedVcpuStateToken } from './shared-vcpu-state.js';
import { type VmHooksRef } from './pause.js';
import { type SlotRegion } from './slot-region.js';

/**
 * How missing pages are kept from the guest.
 *
 * `vacated-slot`: a missing page lies under a memslot that is bound to a guest_memfd whose last descriptor is
 * closed, so that every guest access exits. `memslot-hole`: under no memslot. `userfault-bitmap`: its bit is
 * set in the bitmap of KVM Userfault.
 */
export type SlotStrategy = 'vacated-slot' | 'memslot-hole' | 'userfault-bitmap';

/** How the memory of discarded pages is given back. */
export type DiscardMethod =
  /** Memory of no known file: by madvise(2) where the pages are mapped. */
  | { readonly kind: 'mapped'; readonly memory: MemoryKind }
  /** A hole is punched in the file, in pages of the region. */
  | { readonly kind: 'file'; readonly fd: number; readonly fileOffset: number }
  /** A hole is punched in the guest_memfd, and the reservation over which it was mapped is put back. */
  | { readonly kind: 'guest-memfd'; readonly uffd: number };

export interface SlotThreadData {
  readonly shared: SharedVcpuStateToken;
  readonly regions: readonly SlotRegion[];
  /** For each region, in the order of `regions`. */
  readonly discardMethods: readonly DiscardMethod[];
  /**
   * The thread's own descriptor of the VM, closed by the thread that started it, after the slot thread has
   * ended.
   */
  readonly vm: number;
  readonly run_bytes: number;
  readonly slots: { readonly first: number; readonly count: number };
  readonly strategy: SlotStrategy;
  /** For a userfault bitmap: its flag, and the bitmaps of the regions, by address. */
  readonly userfault: { readonly flag: number; readonly bitmaps: readonly number[] } | undefined;
  readonly verification: VerificationPlace | undefined;
  /** Rung to wake the resolver. */
  readonly doorbell: number;
  readonly hooks: VmHooksRef | undefined;
  /** Where pages that vCPUs wrote are gathered, when writes are logged. */
  readonly dirty: SharedArrayBuffer | undefined;
  readonly control: MessagePort;
}

/** Commands of the control thread to the slot thread. The reply has the same `id`. */
export type SlotCommand =
  /**
   * Pause the vCPUs: replied to once they are paused, until `resume`. Commands in between are executed in the
   * pause.
   */
  | { readonly id: number; readonly kind: 'pause' }
  | { readonly id: number; readonly kind: 'resume' }
  /** Map the populated ones of these pages for the guest, although no vCPU waits for them. */
  | { readonly id: number; readonly kind: 'publish'; readonly pages: PageRange }
  /** Discard populated pages, with their contents. */
  | { readonly id: number; readonly kind: 'discard'; readonly pages: PageRange }
  /** Unmap frozen pages from the guest; their contents stay. */
  | { readonly id: number; readonly kind: 'freeze'; readonly pages: PageRange }
  /** Gather the dirty logs of the mapped slots. */
  | { readonly id: number; readonly kind: 'gather' }
  /** `keep`: present pages stay mapped for the guest; else every memslot is deleted. */
  | { readonly id: number; readonly kind: 'end'; readonly keep: boolean };

export type SlotReply = { readonly id: number; readonly error: PlainError | undefined };
/** The id of the reply that reports readiness. */
export const READY = 0;
/** The id of the reply that reports that memslots can no longer be changed. */
export const FAILED = -1;
