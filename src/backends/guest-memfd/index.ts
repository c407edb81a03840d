export { guestMemfd, type GuestMemfdOptions } from './backend.js';
export {
  openVcpuGate,
  type KvmBackend,
  type KvmOptions,
  type Swaps,
  type VcpuGateToken,
} from '../../kvm/index.js';
