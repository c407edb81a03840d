import { type ModelMechanism } from '../mechanism.js';

/**
 * The guest takes an abort for an access that it was entitled to: what happens to a vCPU in a memslot's hole
 * on arm64.
 */
export const injecting = (): ModelMechanism => ({
  name: 'injecting',
  effect: 'injects',
  address: 'none',
  obstacle: (access, { memory }) => memory.obstacle(access.page, access.write),
  stop: (access) => access.inject(),
});
