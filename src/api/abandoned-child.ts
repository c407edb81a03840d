import { type Attachment } from './backend.js';
import { asDemandPagingError } from './error.js';

/**
 * Lets a forked child go that nothing serves. A child that cannot be let go keeps its descriptor, so that it waits and does
 * not read zeros; that must be heard.
 */
export function abandonChild(attachment: Pick<Attachment, 'abandonChild'>, fd: number): void {
  try {
    attachment.abandonChild(fd);
  } catch (thrown) {
    const { message, code } = asDemandPagingError(thrown, 'KERNEL', 'a forked child cannot be let go');
    process.emitWarning(`accesses of a forked child to missing pages will wait: ${message}`, { code });
  }
}
