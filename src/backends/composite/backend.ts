import { type MemoryLayout } from '../../api/layout.js';
import { type KvmBackend, makeKvmBackend } from '../../kvm/backend.js';
import { coverageOf, type Effects, holeEffects } from '../../kvm/coverage.js';
import { type KvmOptions, type SlotStrategy } from '../../kvm/index.js';
import { hasTwoStagePaging } from '../../linux/index.js';

/**
 * Accesses through the VMM's mapping block; a vCPU exits. A page walk does one or the other, as KVM
 * translates.
 */
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
 * KVM's exits for vCPUs together with a userfaultfd for all other accessors of the same memory, with one
 * table of page states and one source. Contents are installed for the other accessors first (UFFDIO_COPY),
 * then mapped for vCPUs (by a memslot).
 *
 * Preconditions, blocking, errors: as `kvmExit`, and as `userfaultfd` for the descriptor. While an access of
 * KVM itself waits for a page, memslot updates wait as well; the resolver never waits for them.
 * Requires: KVM, Linux 6.18 with guest_memfd; a userfaultfd that reports kernel faults.
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
