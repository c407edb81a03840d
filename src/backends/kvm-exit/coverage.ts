import { type Effects } from '../../kvm/coverage.js';

/**
 * Nothing but vCPUs is stopped. KVM's own accesses meet addresses without memory (EFAULT). The walk is
 * KVM's where it shadows the guest's page tables, and the guest then sees a page fault; with two-stage
 * translation it exits like any other access: the worse of the two is declared.
 */
const VACATED: Effects = {
  'vcpu-load': 'exits',
  'vcpu-store': 'exits',
  'vcpu-atomic': 'exits',
  'vcpu-fetch': 'exits',
  'vcpu-walk': 'injects',
  'kernel-copy': 'errors',
  'kernel-cached-pfn': 'errors',
  'kernel-visibility': 'unmediated',
  'vmm-load': 'unmediated',
  'vmm-store': 'unmediated',
  'vmm-syscall': 'unmediated',
  'external-mapping': 'unmediated',
  'external-vm-readv': 'unmediated',
  'external-vhost': 'unmediated',
};

/**
 * A hole is no memory: only what KVM can emulate as device access comes out with the data asked for. A locked
 * access becomes a read and a write, which are not atomic.
 */
const HOLE: Effects = {
  ...VACATED,
  'vcpu-atomic': 'unmediated',
  'vcpu-fetch': 'errors',
  'vcpu-walk': 'injects',
};

export const EFFECTS = { 'vacated-slot': VACATED, 'memslot-hole': HOLE } as const;
