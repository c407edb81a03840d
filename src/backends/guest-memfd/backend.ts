import { type KvmBackend, makeKvmBackend } from '../../kvm/backend.js';
import { coverageOf, type Effects } from '../../kvm/coverage.js';
import { type KvmOptions } from '../../kvm/index.js';
import { hasTwoStagePaging } from '../../linux/index.js';

/** As {@link KvmOptions}; there is only one strategy. */
export type GuestMemfdOptions = Omit<KvmOptions, 'strategy'>;

/** Another mapping of the file is not watched. */
const effects = (): Effects => ({
  'vcpu-load': 'exits',
  'vcpu-store': 'exits',
  'vcpu-atomic': 'exits',
  'vcpu-fetch': 'exits',
  'vcpu-walk': hasTwoStagePaging() ? 'exits' : 'blocks',
  'kernel-copy': 'blocks',
  'kernel-cached-pfn': 'blocks',
  'kernel-visibility': 'unmediated',
  'vmm-load': 'blocks',
  'vmm-store': 'blocks',
  'vmm-syscall': 'blocks',
  'external-mapping': 'unmediated',
  'external-vm-readv': 'blocks',
  'external-vhost': 'blocks',
});

/**
 * Demand paging of memory that lives in a guest_memfd, on a kernel whose guest_memfd takes no userfaultfd:
 * vCPUs exit at vacated slots, everyone else waits at a registered reservation over which the filled parts of
 * the file are mapped. Each part is a mapping until its neighbours come. Before the process has vm.max_map_count of
 * them, what comes stays hidden from all but vCPUs until it is asked for, and others are hidden in turn (`swaps.hiddenRuns`):
 * slower, and nothing is lost. Larger pages need fewer mappings.
 *
 * Preconditions, blocking, errors: as `composite`. Whoever touches pages while they are withdrawn, removed or frozen
 * waits: in their place comes a placeholder that is registered already. Regions may bring their file (`file.fd`), made by the VM with MMAP and INIT_SHARED.
 * Requires: KVM, Linux 6.18 with guest_memfd; a userfaultfd that takes kernel faults.
 * Source: KVM's api.rst (KVM_CREATE_GUEST_MEMFD), ioctl_userfaultfd(2).
 */
export const guestMemfd = (options: GuestMemfdOptions): KvmBackend =>
  makeKvmBackend(
    {
      name: 'guest-memfd',
      mediation: 'guest-memfd',
      coverage: (layout, _strategy, chunk) => coverageOf(effects(), layout, chunk),
    },
    { ...options, strategy: 'vacated-slot' },
  );
