import { type Errno, type Gpa } from '../api/index.js';

/**
 * What a plan needs of guest memory. A driver adapts a pager, or a VMM its own memory, to it.
 * Pages are windows of 4096 bytes, named by their first address.
 */
export interface PlanMemory {
  /** Is the page in a memslot? Never waits and touches nothing. */
  visible(page: Gpa): boolean;
  /** Can it be written? If not (a read-only memslot), a write is EFAULT. Never waits. Default: all can. */
  writable?(page: Gpa): boolean;
  /** Is its content here already? Only counted with: it decides what a round is. Never waits. */
  present(page: Gpa): boolean;
  /**
   * Makes the pages present and *holds* them: from the moment the promise resolves until
   * {@link release} none of them may be removed, dropped or frozen. Arrival and hold are one step, so
   * that no removal fits between them. Resolves with one result per page, in order: its 4096 bytes (the
   * caller's own copy), or a positive errno with nothing held. Each page is fetched at most once.
   */
  fetch(pages: readonly Gpa[]): Promise<readonly (Uint8Array | Errno)[]>;
  /** Ends the hold of pages that {@link fetch} gave. */
  release(pages: readonly Gpa[]): void;
}
