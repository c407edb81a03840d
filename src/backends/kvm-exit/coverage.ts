import { type Effects, holeEffects } from '../../kvm/coverage.js';
import { type SlotStrategy } from '../../kvm/index.js';

/**
 * Nothing but vCPUs is stopped. KVM's own accesses meet addresses without memory (EFAULT). The walk is
 * KVM's where it shadows the guest's page tables, and the guest then sees a page fault; with two-stage
 * translation it exits like any other access.
 */
const vacated = (twoStages: boolean): Effects => ({
  'vcpu-load': 'exits',
  'vcpu-store': 'exits',
  'vcpu-atomic': 'exits',
  'vcpu-fetch': 'exits',
  'vcpu-walk': twoStages ? 'exits' : 'injects',
  'kernel-copy': 'errors',
  'kernel-cached-pfn': 'errors',
  'kernel-visibility': 'unmediated',
  'vmm-load': 'unmediated',
  'vmm-store': 'unmediated',
  'vmm-syscall': 'unmediated',
  'external-mapping': 'unmediated',
  'external-vm-readv': 'unmediated',
  'external-vhost': 'unmediated',
});

/** KVM's own accesses go through the slot, past the bitmap. */
const bitmap = (twoStages: boolean): Effects => ({
  ...vacated(twoStages),
  'vcpu-walk': twoStages ? 'exits' : 'unmediated',
  'kernel-copy': 'unmediated',
  'kernel-cached-pfn': 'unmediated',
});

/** What a missing page does, with KVM's way to take it away, where the processor translates in two stages or in one. */
export function effectsOf(strategy: SlotStrategy, twoStages: boolean): Effects {
  switch (strategy) {
    case 'vacated-slot':
      return vacated(twoStages);
    case 'memslot-hole':
      return { ...vacated(twoStages), ...holeEffects(twoStages) };
    case 'userfault-bitmap':
      return bitmap(twoStages);
  }
}
