import { type Effects, holeEffects } from '../../kvm/coverage.js';
import { type SlotStrategy } from '../../kvm/index.js';

/**
 * Only vCPUs are stopped. KVM's own accesses find no memory at the address (EFAULT). Where KVM shadows the
 * guest's page tables the walk is KVM's, and the guest sees a page fault; with two-stage translation it exits
 * like any other access.
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

/** KVM's own accesses use the memslot and ignore the bitmap. */
const bitmap = (twoStages: boolean): Effects => ({
  ...vacated(twoStages),
  'vcpu-walk': twoStages ? 'exits' : 'unmediated',
  'kernel-copy': 'unmediated',
  'kernel-cached-pfn': 'unmediated',
});

/** The effect of an access to a missing page. `twoStages`: the processor translates in two stages. */
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
