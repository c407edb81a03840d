export { composite } from './backend.js';
export {
  openVcpuGate,
  type KvmBackend,
  type KvmOptions,
  type Swaps,
  type VcpuGateToken,
} from '../../kvm/index.js';
