export { openVcpuExitHandler, type VcpuExitHandlerToken } from './exit-handler.js';
export { ExitPort, openExitPort, type ExitPortToken } from './exit-port.js';
export { type SharedVcpuStateToken, type MemslotUpdates } from './shared-vcpu-state.js';
export { type SlotRegion } from './slot-region.js';
export { type SlotStrategy } from './slot-thread.js';
export { type VmHooks, type VmHooksRef } from './pause.js';
export { type KvmBackend } from './backend.js';
export { type UserfaultNumbers } from './userfault-slots.js';
export { type KvmOptions } from './options.js';
export {
  type GicAnswer,
  KvmGic,
  type KvmGicOptions,
  type KvmGicSpec,
  type RedistributorRegion,
} from './gic.js';
