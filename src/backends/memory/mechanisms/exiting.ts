import { type ModelMechanism } from '../mechanism.js';

/**
 * As KVM's memory-fault exit does it: the vCPU leaves KVM_RUN with the address, and its gate, in user
 * space, delivers the fault and waits before it enters again. The gate knows its vCPU.
 */
export const exiting = (): ModelMechanism => ({
  name: 'exiting',
  effect: 'exits',
  address: 'exact',
  obstacle: (access, { memory }) => memory.obstacle(access.page, access.write),
  stop: (access, kind) => access.exit(kind),
});
