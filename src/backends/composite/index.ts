export { composite } from './backend.js';
export {
  openVcpuExitHandler,
  type KvmBackend,
  type KvmOptions,
  type MemslotUpdates,
  type VcpuExitHandlerToken,
} from '../../kvm/index.js';
