import { type KvmBackend, makeKvmBackend } from '../../kvm/backend.js';
import { coverageOf, type Effects } from '../../kvm/coverage.js';
import { type KvmOptions } from '../../kvm/index.js';
import { hasTwoStagePaging } from '../../linux/index.js';

/** As {@link KvmOptions}, without the strategy: there is only one. */
export type GuestMemfdOptions = Omit<KvmOptions, 'strategy'>;

/** Other mappings of the file are not watched. */
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
 * Demand paging of memory in a guest_memfd, on a kernel whose guest_memfd supports no userfaultfd: vCPUs exit
 * at vacated slots; all other accessors wait at a registered reservation, over which the populated parts of
 * the file are mapped. Each part is a mapping until its neighbours are populated. Before the process has
 * vm.max_map_count mappings, further pages are mapped for vCPUs only, until another accessor needs them, and
 * mapped runs are unmapped in turn (`memslotUpdates.unmappedRuns`): this is slower, and nothing is lost.
 * Larger pages need fewer mappings.
 *
 * Preconditions, blocking, errors: as `composite`. An access to a page while it is being discarded or is
 * frozen waits: a placeholder, which is already registered, replaces the page. Regions may bring their file
 * (`file.fd`), created from the VM with MMAP and INIT_SHARED.
 * Requires: KVM, Linux 6.18 with guest_memfd; a userfaultfd that reports kernel faults.
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
