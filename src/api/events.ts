// The namespace import is deliberate: with NodeNext resolution the default import of this CommonJS
// package is the module object, and the type silently becomes any.
import type * as TE from 'typed-emitter';
import { type PageRange } from './address.js';
import { type DemandPagingError } from './error.js';
import { type Fault, type OutsideFault } from './fault.js';
import { type InstallReason, type OutsideAnswer } from './resolver-protocol.js';
import { type PageStatesSnapshot } from './page-states.js';

/**
 * What a pager tells its listeners. Events notify; what must be awaited is a return value. `fault` and
 * `installed` are sent only while they have a listener, and are dropped and counted (`droppedEvents`) when
 * the control thread does not keep up. `stopped` without a listener emits a process warning; so does the
 * first `outside-fault`.
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
   * (`droppedEvents`) when the control thread does not keep up; `outsideFaults` counts them all.
   */
  'outside-fault': (fault: OutsideFault, answer: OutsideAnswer) => void;
  retrying: (pages: PageRange, attempt: number, error: DemandPagingError) => void;
  'source-failed': (pages: PageRange, error: DemandPagingError) => void;
  /** Every page is present. */
  complete: () => void;
  /** The pager serves no access any more. `waiters`: what became of the accesses that waited. */
  stopped: (error: DemandPagingError, waiters: 'poisoned' | 'blocked') => void;
  closed: () => void;
};

export type PagerEmitter = TE.default<PagerEvents>;
