import { type PageIndex, type PageRange } from '../api/address.js';
import { type AccessSite } from '../api/access.js';
import { type Walk, type WalkReport } from './walk.js';

/** One access. Offsets and lengths are in bytes; an access stays inside its page. */
export interface AccessRequest {
  readonly page: PageIndex;
  /** Where in the page; default 0. */
  readonly offset?: number | undefined;
  /** Bytes to write; absent for a read. */
  readonly bytes?: Uint8Array | undefined;
  /** Bytes to read; default: to the end of the page. */
  readonly length?: number | undefined;
}

/** What came of an access: what was read (empty for a write), or a positive errno. */
export type AccessResult =
  { readonly ok: true; readonly bytes: Uint8Array } | { readonly ok: false; readonly errno: number };

/**
 * Somebody who accesses guest memory from one site, apart from whoever serves it: a missing page stops
 * this one and nobody else.
 */
export interface Accessor extends AsyncDisposable {
  readonly site: AccessSite;
  /** How the access is made, in a few words. */
  readonly how: string;
  /** Kernel thread id of whoever makes the accesses, for {@link Pager.nameThread}; undefined in the model. */
  readonly thread: number | undefined;

  /** Makes one access; the promise settles when it is through, so a missing page keeps it open. */
  access(request: AccessRequest): Promise<AccessResult>;

  /**
   * Reads the pages of a walk whole, one after the other (`vmm-store`: after writing a byte of each back).
   */
  walk(walk: Walk): Promise<WalkReport>;

  /**
   * Drops pages of one region behind the pager's back (MADV_DONTNEED), as an allocator or a balloon of the
   * VMM's does. Only on threads of the process that has the memory. Rejects with KERNEL and the errno.
   */
  discard?(pages: PageRange): Promise<void>;

  /** Lets the walk under way end after its present access; it resolves with what it has. */
  interrupt(): void;

  /**
   * Ends it. Idempotent. When it resolves, its thread or process and its descriptors are gone.
   * Precondition for accessors on a thread: no access of theirs waits for a page that nobody brings,
   * since nothing can end a thread that is stopped in the kernel. Another process is killed.
   */
  stop(): Promise<void>;
}
