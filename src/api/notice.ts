import { type PageRange } from './address.js';
import { type AccessClass } from './access.js';
import { type DropRange } from './drops.js';
import { type PlainError } from './error.js';
import { type Fault, type OutsideFault } from './fault.js';
import { type Region } from './layout.js';
import { type PageStatesSnapshot } from './page-states.js';

/** What a resolver tells the control thread, unasked. Cloneable. */
export type Notice =
  /** Only sent while somebody listens, and dropped (and counted) when too many are under way. */
  | { readonly kind: 'fault'; readonly fault: Fault }
  | { readonly kind: 'installed'; readonly pages: PageRange; readonly why: InstallReason }
  | { readonly kind: 'removed' | 'unmapped' | 'written' | 'poisoned'; readonly pages: PageRange }
  | { readonly kind: 'remapped'; readonly pages: PageRange; readonly to: number }
  | { readonly kind: 'forked'; readonly fd: number; readonly states: PageStatesSnapshot }
  /** May be dropped, as `fault`. */
  | { readonly kind: 'outside-fault'; readonly fault: OutsideFault; readonly answer: OutsideAnswer }
  | {
      readonly kind: 'retrying';
      readonly pages: PageRange;
      readonly attempt: number;
      readonly error: PlainError;
    }
  | { readonly kind: 'source-failed'; readonly pages: PageRange; readonly error: PlainError }
  /** Every page of the resolver's is present. */
  | { readonly kind: 'complete' }
  | { readonly kind: 'stopped'; readonly error: PlainError; readonly waiters: 'poisoned' | 'blocked' };

/** What became of an access outside the layout. `released`: a protection was lifted. `waits`: it could not be answered. */
export type OutsideAnswer = 'zeros' | 'refused' | 'released' | 'waits';

/** Why a page came. `foreign`: it was there already, though the pager had not installed it. */
export type InstallReason = FetchReason | 'zeroed' | 'foreign';

/** Why a page is fetched: an access waits, nobody waits yet, the program asked. */
export type FetchReason = 'demand' | 'prefetch' | 'ensured';

/** Notices that may be dropped. */
export const isDroppable = (notice: Notice): boolean =>
  notice.kind === 'fault' || notice.kind === 'installed' || notice.kind === 'outside-fault';

/** What the control thread asks of a resolver. Cloneable; ranges lie inside the resolver's shard. */
export type Command =
  /** Bring these pages as if accessed; answers when all are present. */
  | { readonly command: 'ensure'; readonly ranges: readonly PageRange[] }
  /** Bring these pages when nobody waits, in this order; answers with {@link PrefetchResult} when through. */
  | { readonly command: 'prefetch'; readonly ranges: readonly PageRange[] }
  /** The contents are there already. */
  | { readonly command: 'mark-present'; readonly ranges: readonly PageRange[] }
  /** No more installing in these pages, faults there wait; the control thread drops them now. */
  | {
      readonly command: 'drop-begin';
      readonly ranges: readonly DropRange[];
      readonly then: 'missing' | 'zero';
    }
  /** They are dropped; faults there are served again. */
  | { readonly command: 'drop-end'; readonly ranges: readonly PageRange[] }
  | { readonly command: 'freeze' | 'thaw'; readonly ranges: readonly PageRange[] }
  | { readonly command: 'poison'; readonly ranges: readonly PageRange[] }
  /** Serve these regions, too; `token` is the port's, `states` are of their pages, in the order of their numbers. */
  | {
      readonly command: 'add-regions';
      readonly regions: readonly Region[];
      readonly token: unknown;
      readonly states: PageStatesSnapshot;
    }
  /** Serve these regions, a range each, no longer. Answers when nobody waits there and none of them is watched. */
  | {
      readonly command: 'remove-regions';
      readonly ranges: readonly PageRange[];
      readonly missing: MissingAtClose;
    }
  /** Serve nobody any more: what pages are brought for has failed. */
  | { readonly command: 'stop'; readonly error: PlainError }
  | { readonly command: 'write-protect' | 'write-unprotect'; readonly ranges: readonly PageRange[] }
  /** Faults of this kernel thread are of this class. */
  | {
      readonly command: 'thread';
      readonly thread: number;
      readonly class: AccessClass;
      readonly vcpu?: number;
    }
  | { readonly command: 'listen'; readonly faults: boolean; readonly installs: boolean }
  /** Serve nobody any more. */
  | { readonly command: 'end'; readonly missing: MissingAtClose };

/**
 * What becomes of pages that are still missing when the pager closes. `discard`: the attachment takes the memory away, and
 * with it what waits there; only accesses outside the layout are seen to before.
 */
export type MissingAtClose = 'poison' | 'zero' | 'leave' | 'discard';

export interface PrefetchResult {
  readonly installedPages: number;
  /** Present, removed, poisoned or frozen by the time their turn came. */
  readonly skippedPages: number;
}

export type CommandReply =
  { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly error: PlainError };
