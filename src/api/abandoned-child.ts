import { type Attachment } from './backend.js';
import { asDemandPagingError } from './error.js';

/**
 * Lets the accesses of a forked child go that no pager serves. Where that fails, the child's descriptor stays
 * open, so that they wait and never read zeros, and a process warning says so.
 */
export function abandonChild(attachment: Pick<Attachment, 'abandonChild'>, fd: number): void {
  try {
    attachment.abandonChild(fd);
  } catch (thrown) {
    const { message, code } = asDemandPagingError(thrown, 'KERNEL', 'a forked child cannot be let go');
    process.emitWarning(`accesses of a forked child to missing pages will wait: ${message}`, { code });
  }
}
