import { type PageRange } from './address.js';
import { type AccessClass } from './access.js';
import { type AfterDiscard, type DiscardRange } from './discards.js';
import { type PlainError } from './error.js';
import { type Fault, type OutsideFault } from './fault.js';
import { type Region } from './layout.js';
import { type PageStatesSnapshot } from './page-states.js';

/** What a resolver tells the control thread, unasked. Cloneable. */
export type ResolverEvent =
  /** Only sent while there is a listener, and dropped (and counted) when too many are in flight. */
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

/**
 * What became of an access outside the layout. `released`: a protection was lifted. `waits`: it could not be
 * answered.
 */
export type OutsideAnswer = 'zeros' | 'refused' | 'released' | 'waits';

/** Why a page came. `foreign`: it was there already, though the pager had not installed it. */
export type InstallReason = FetchReason | 'zeroed' | 'raced';

/** Why a page is fetched: an access waits, no access waits yet, the program asked. */
export type FetchReason = 'demand' | 'prefetch' | 'ensured';

/** Events that may be dropped. */
export const isDroppable = (event: ResolverEvent): boolean =>
  event.kind === 'fault' || event.kind === 'installed' || event.kind === 'outside-fault';

/** What the control thread asks of a resolver. Cloneable; ranges lie inside the resolver's shard. */
export type Command =
  /** Bring these pages as if accessed; answers when all are present. */
  | { readonly command: 'ensure'; readonly ranges: readonly PageRange[] }
  /**
   * Bring these pages while no access waits, in this order; answers with {@link PrefetchResult} when all were
   * looked at.
   */
  | { readonly command: 'prefetch'; readonly ranges: readonly PageRange[] }
  /** The contents are there already. */
  | { readonly command: 'mark-present'; readonly ranges: readonly PageRange[] }
  /** Install nothing more in these pages, and let faults there wait; the control thread discards them now. */
  | {
      readonly command: 'discard-begin';
      readonly ranges: readonly DiscardRange[];
      readonly then: AfterDiscard;
    }
  /** They are discarded; faults there are served again. */
  | { readonly command: 'discard-end'; readonly ranges: readonly PageRange[] }
  | { readonly command: 'freeze' | 'thaw'; readonly ranges: readonly PageRange[] }
  | { readonly command: 'poison'; readonly ranges: readonly PageRange[] }
  /**
   * Serve these regions, too; `token` is the port's, `states` are of their pages, in the order of their
   * numbers.
   */
  | {
      readonly command: 'add-regions';
      readonly regions: readonly Region[];
      readonly token: unknown;
      readonly states: PageStatesSnapshot;
    }
  /**
   * Serve these regions, a range each, no longer. Answers when no access waits there and none of them is
   * registered.
   */
  | {
      readonly command: 'remove-regions';
      readonly ranges: readonly PageRange[];
      readonly missing: MissingAtClose;
    }
  /** Serve no access any more: installed pages do not become visible. */
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
  /** End the resolver. */
  | { readonly command: 'end'; readonly missing: MissingAtClose };

/**
 * What becomes of pages that are still missing when the pager closes. `revoke`: the attachment revokes the
 * memory, which ends every wait there; the resolver answers only accesses outside the layout.
 */
export type MissingAtClose = 'poison' | 'zero' | 'leave' | 'revoke';

export interface PrefetchResult {
  readonly installedPages: number;
  /** Present, removed, poisoned or frozen by the time their turn came. */
  readonly skippedPages: number;
}

export type CommandReply =
  { readonly ok: true; readonly value: unknown } | { readonly ok: false; readonly error: PlainError };
