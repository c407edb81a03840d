import { type ModelMechanism } from '../mechanism.js';

/**
 * As KVM's memory-fault exit: the vCPU leaves KVM_RUN with the address, and its exit handler in user space
 * delivers the fault, with the vCPU's index, and waits before it enters again.
 */
export const exiting = (): ModelMechanism => ({
  name: 'exiting',
  effect: 'exits',
  address: 'exact',
  obstacle: (access, { memory }) => memory.obstacle(access.page, access.write),
  stop: (access, kind) => access.exit(kind),
});
