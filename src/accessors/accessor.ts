import { type PageIndex, type PageRange } from '../api/address.js';
import { type AccessSite } from '../api/access.js';
import { type Walk, type WalkReport } from './walk.js';

/** One access. Offsets and lengths are in bytes; an access stays inside its page. */
export interface AccessRequest {
  readonly page: PageIndex;
  /** Offset in the page; default 0. */
  readonly offset?: number | undefined;
  /** Bytes to write; absent for a read. */
  readonly bytes?: Uint8Array | undefined;
  /** Bytes to read; default: to the end of the page. */
  readonly length?: number | undefined;
}

/** The result of an access: the bytes read (empty for a write), or a positive errno. */
export type AccessResult =
  { readonly ok: true; readonly bytes: Uint8Array } | { readonly ok: false; readonly errno: number };

/**
 * An accessor of guest memory from one site, on a thread other than the resolver's: a missing page stops the
 * accessor only.
 */
export interface Accessor extends AsyncDisposable {
  readonly site: AccessSite;
  /** How the access is made, in a few words. */
  readonly how: string;
  /**
   * Kernel id of the thread that makes the accesses, for {@link Pager.nameThread}; undefined in the model.
   */
  readonly thread: number | undefined;

  /**
   * Makes one access. The promise settles when the access has completed: with a missing page it stays
   * pending.
   */
  access(request: AccessRequest): Promise<AccessResult>;

  /**
   * Reads the pages of a walk whole, one after the other (`vmm-store`: after writing a byte of each back).
   */
  walk(walk: Walk): Promise<WalkReport>;

  /**
   * Discards pages of one region without the pager (MADV_DONTNEED), as an allocator or a balloon of the VMM
   * does. Only on threads of the process that has the memory. Rejects with KERNEL and the errno.
   */
  discard?(pages: PageRange): Promise<void>;

  /** Ends the walk in progress after its current access; it resolves with the pages read so far. */
  interrupt(): void;

  /**
   * Ends it. Idempotent. When it resolves, its thread or process and its descriptors are gone. Precondition
   * for accessors on a thread: no access of theirs waits for a page that never arrives, since a thread that
   * is stopped in the kernel cannot be ended. Another process is killed.
   */
  stop(): Promise<void>;
}
