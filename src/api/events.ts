// The namespace import is deliberate: with NodeNext resolution the default import of this CommonJS
// package is the module object, and the type silently becomes any.
import type * as TE from 'typed-emitter';
import { type PageRange } from './address.js';
import { type DemandPagingError } from './error.js';
import { type Fault, type OutsideFault } from './fault.js';
import { type InstallReason, type OutsideAnswer } from './notice.js';
import { type PageStatesSnapshot } from './page-states.js';

/**
 * What a pager tells whoever listens. Events notify; what must be awaited is a return value. `fault`
 * and `installed` are sent only while somebody listens, and dropped and counted (`droppedNotices`) when the
 * control thread does not keep up. When nobody listens to `stopped`, a process warning is emitted; of `outside-fault`, at
 * the first.
 */
export type PagerEvents = {
  fault: (fault: Fault) => void;
  installed: (pages: PageRange, why: InstallReason) => void;
  /** The pages were removed and read as zeros from now on. */
  removed: (pages: PageRange) => void;
  unmapped: (pages: PageRange) => void;
  /** The pages moved to another host-virtual address; accesses by guest-physical address follow. */
  remapped: (pages: PageRange, to: number) => void;
  /** A write-protected page was written; it is no longer protected. */
  written: (pages: PageRange) => void;
  poisoned: (pages: PageRange) => void;
  /**
   * The VMM forked; `fd` is the userfaultfd of the child's copy of the memory and `states` what the child's
   * pages are: for the pager that serves them ({@link PagerOptions.states}). The listener owns the
   * descriptor, which is a blocking one where the VMM's was made so. Not sent under the `poison` fork policy.
   */
  forked: (fd: number, states: PageStatesSnapshot) => void;
  /**
   * An access outside the layout was answered as the policy's `onOutsideFault` says. Dropped and counted
   * (`droppedNotices`) when the control thread does not keep up; `outsideFaults` counts them all.
   */
  'outside-fault': (fault: OutsideFault, answer: OutsideAnswer) => void;
  retrying: (pages: PageRange, attempt: number, error: DemandPagingError) => void;
  'source-failed': (pages: PageRange, error: DemandPagingError) => void;
  /** Every page is present. */
  complete: () => void;
  /** The pager serves nobody any more. `waiters`: what became of those who wait. */
  stopped: (error: DemandPagingError, waiters: 'poisoned' | 'blocked') => void;
  closed: () => void;
};

export type PagerEmitter = TE.default<PagerEvents>;
