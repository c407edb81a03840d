import { type MessagePort } from 'node:worker_threads';
import { type PageRange } from '../api/address.js';
import { type PlainError } from '../api/error.js';
import { type MemoryKind } from '../api/layout.js';
import { type CanaryPlace } from './canary.js';
import { type ExitBoardToken } from './exit-board.js';
import { type VmHooksRef } from './pause.js';
import { type SlotRegion } from './slot-region.js';

/** How pages are taken out of the guest's sight, and brought back. */
export type SlotStrategy = 'vacated-slot' | 'memslot-hole' | 'userfault-bitmap';

/** What becomes of the memory behind pages that are taken away. */
export type DropKind =
  /** Of no file that is known: they are discarded where they are mapped. */
  | { readonly kind: 'mapped'; readonly memory: MemoryKind }
  /** They are punched out of the file, in pages of the region. */
  | { readonly kind: 'file'; readonly fd: number; readonly fileOffset: number }
  /** They are punched out of the guest_memfd, and the reservation over which it was mapped is put back. */
  | { readonly kind: 'guest-memfd'; readonly uffd: number };

export interface SlotThreadData {
  readonly board: ExitBoardToken;
  readonly regions: readonly SlotRegion[];
  /** How each region drops pages, in the order of `regions`. */
  readonly drops: readonly DropKind[];
  /** The thread's own descriptor of the VM, closed by whoever started it when it has ended. */
  readonly vm: number;
  readonly run_bytes: number;
  readonly slots: { readonly first: number; readonly count: number };
  readonly strategy: SlotStrategy;
  /** For a userfault bitmap: its flag, and the bitmaps of the regions, by address. */
  readonly userfault: { readonly flag: number; readonly bitmaps: readonly number[] } | undefined;
  readonly canary: CanaryPlace | undefined;
  /** Rung when the resolver ought to look. */
  readonly doorbell: number;
  readonly hooks: VmHooksRef | undefined;
  /** Where pages that vCPUs wrote are gathered, where they are logged. */
  readonly dirty: SharedArrayBuffer | undefined;
  readonly control: MessagePort;
}

/** What the control thread asks of the slot thread. Answered by the same `id`. */
export type SlotCommand =
  /** Have the vCPUs stand: answered when they do, and they do until `go`. What is asked meanwhile is done while they stand. */
  | { readonly id: number; readonly kind: 'stand' }
  | { readonly id: number; readonly kind: 'go' }
  /** Show the guest what of these pages is filled, though no vCPU waits for it. */
  | { readonly id: number; readonly kind: 'publish'; readonly pages: PageRange }
  /** Take filled pages away, with their contents. */
  | { readonly id: number; readonly kind: 'drop'; readonly pages: PageRange }
  /** Keep the guest from frozen pages, whose contents stay. */
  | { readonly id: number; readonly kind: 'hide'; readonly pages: PageRange }
  /** Gather what the logs of the live slots say. */
  | { readonly id: number; readonly kind: 'gather' }
  /** `keep`: what is present stays visible to the guest; else every slot goes. */
  | { readonly id: number; readonly kind: 'end'; readonly keep: boolean };

export type SlotReply = { readonly id: number; readonly error: PlainError | undefined };
/** The id under which readiness is told. */
export const READY = 0;
/** The id under which it is told that slots cannot be changed any more. */
export const FAILED = -1;
