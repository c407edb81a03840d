import { type PageRange } from '../../api/address.js';
import { type Segment } from './address-map.js';
import { type KickToken } from './kick.js';

/** All that a port needs to be opened in any isolate of the process. Cloneable. */
export interface UserfaultfdPortToken {
  /** The userfaultfd. It belongs to the attachment; the port borrows it. */
  readonly uffd: number;
  readonly kick: KickToken;
  /** What the event loop has read and no port has taken; see {@link UffdArrivals}. */
  readonly arrivals: SharedArrayBuffer;
  /** A pidfd of the process whose memory is served, where that is another and is known. */
  readonly process: number | undefined;
  /** The shard's pages: those that are unmapped, too. */
  readonly pages: readonly PageRange[];
  readonly segments: readonly Segment[];
  readonly staging_bytes: number;
  /** The memory is mapped in this process. */
  readonly local: boolean;
  readonly threadIds: boolean;
}

/** What a port needs to watch regions that are added. Cloneable. */
export interface AddedRegionsToken {
  readonly pages: readonly PageRange[];
  /** `verbs`: those that every region has to answer. */
  readonly segments: readonly Segment[];
  /** The modes to register them with; undefined where the other process has done so. */
  readonly mode: number | undefined;
  /** Features of the userfaultfd that are on. */
  readonly features: number;
}
