import { type MemoryLayout } from '../../api/layout.js';
import { type KvmBackend, makeKvmBackend } from '../../kvm/backend.js';
import { coverageOf, type Effects, holeEffects } from '../../kvm/coverage.js';
import { type KvmOptions, type SlotStrategy } from '../../kvm/index.js';
import { hasTwoStagePaging } from '../../linux/index.js';

/** Everyone through the VMM's mapping waits; a vCPU exits. A walk is one or the other, as KVM translates. */
function effectsOf(layout: MemoryLayout, strategy: SlotStrategy): Effects {
  const shared = layout.regions.some(({ memory }) => memory !== 'anonymous');
  const hole = strategy === 'memslot-hole';
  const twoStages = hasTwoStagePaging();
  return {
    'vcpu-load': 'exits',
    'vcpu-store': 'exits',
    'vcpu-atomic': 'exits',
    'vcpu-fetch': 'exits',
    'vcpu-walk': twoStages ? 'exits' : 'blocks',
    'kernel-copy': hole ? 'errors' : 'blocks',
    'kernel-cached-pfn': hole ? 'errors' : 'blocks',
    'kernel-visibility': 'unmediated',
    'vmm-load': 'blocks',
    'vmm-store': 'blocks',
    'vmm-syscall': 'blocks',
    'external-mapping': shared ? 'unmediated' : 'errors',
    'external-vm-readv': 'blocks',
    'external-vhost': 'blocks',
    ...(hole ? holeEffects(twoStages) : {}),
  };
}

/**
 * KVM's exits for vCPUs together with a userfaultfd for everyone else, on the same memory: one table of
 * page states, one source. Contents appear to the others first (UFFDIO_COPY), then to the vCPUs (the slot).
 *
 * Preconditions, blocking, errors: as `kvmExit`, and as `userfaultfd` for the descriptor. While KVM's own
 * access waits for a page, slots wait as well: the resolver never waits for them.
 * Requires: KVM, Linux 6.18 with guest_memfd; a userfaultfd that takes kernel faults.
 * Source: KVM's api.rst, ioctl_userfaultfd(2).
 */
export const composite = (options: KvmOptions): KvmBackend =>
  makeKvmBackend(
    {
      name: 'composite',
      mediation: 'userfaultfd',
      coverage: (layout, strategy, chunk) => coverageOf(effectsOf(layout, strategy), layout, chunk),
    },
    options,
  );
