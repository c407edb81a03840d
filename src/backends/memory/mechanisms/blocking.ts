import { type ModelMechanism } from '../mechanism.js';

/**
 * As userfaultfd(2) does it: a barred access waits in the kernel, and a fault is delivered with its
 * address and thread, but without a word on where the access came from.
 */
export const blocking = (): ModelMechanism => ({
  name: 'blocking',
  effect: 'blocks',
  address: 'exact',
  obstacle: (access, { memory }) => memory.obstacle(access.page, access.write),
  stop: (access, kind, kernel) => kernel.deliver(access, kind),
});
