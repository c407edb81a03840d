import { ERRNO } from '../errno.js';
import { type ModelMechanism } from '../mechanism.js';

/**
 * The other policy for accesses that cannot wait (UFFD_FEATURE_SIGBUS, and what was proposed for KVM's
 * own accesses): EFAULT at once, and nobody is told. Whoever made the access brings the page and tries again.
 */
export const erroring = (): ModelMechanism => ({
  name: 'erroring',
  effect: 'errors',
  address: 'none',
  obstacle: (access, { memory }) => memory.obstacle(access.page, access.write),
  stop: (access) => access.fail(ERRNO.EFAULT),
});
