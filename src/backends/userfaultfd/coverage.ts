import {
  type AccessSite,
  type Coverage,
  type Effect,
  SITE_NAMES,
  type SiteCoverage,
} from '../../api/access.js';
import { type MemoryLayout } from '../../api/layout.js';
import { type UserfaultfdChoice } from './options.js';

/** Sites where the kernel reaches the memory for itself: KVM pins or copies, vhost and system calls copy. */
const BY_KERNEL: ReadonlySet<AccessSite> = new Set<AccessSite>([
  'vcpu-load',
  'vcpu-store',
  'vcpu-atomic',
  'vcpu-fetch',
  'vcpu-walk',
  'kernel-copy',
  'kernel-cached-pfn',
  'vmm-syscall',
  'external-vm-readv',
  'external-vhost',
]);

/**
 * What a missing page does at each site, from the kernel's documentation: every row `declared`.
 * KVM reaches guest memory through the VMA, so its accesses wait like any other, unless the descriptor is
 * user-mode-only (then KVM_RUN and the copying system calls fail with EFAULT) or in SIGBUS mode.
 */
export function declaredCoverage(
  layout: MemoryLayout,
  choice: Pick<UserfaultfdChoice, 'userModeOnly' | 'sigbus'>,
): Coverage {
  const granule_bytes = Math.max(...layout.regions.map((region) => region.pageSize));
  const shared = layout.regions.some((region) => region.memory !== 'anonymous');
  return SITE_NAMES.map((site): SiteCoverage => {
    const effect = effectAt(site, choice, shared);
    return {
      site,
      effect,
      granule_bytes,
      address: effect === 'blocks' ? 'exact' : 'none',
      evidence: 'declared',
    };
  });
}

function effectAt(
  site: AccessSite,
  choice: Pick<UserfaultfdChoice, 'userModeOnly' | 'sigbus'>,
  shared: boolean,
): Effect {
  if (site === 'kernel-visibility') return 'unmediated'; // a look at the memslots, not at memory
  // A userfaultfd belongs to one address space: another mapping of the file is not watched. Private
  // memory cannot be mapped elsewhere: the attempt itself fails.
  if (site === 'external-mapping') return shared ? 'unmediated' : 'errors';
  if (choice.sigbus) return 'errors';
  return choice.userModeOnly && BY_KERNEL.has(site) ? 'errors' : 'blocks';
}
