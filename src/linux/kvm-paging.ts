import { readFileSync } from 'node:fs';

/** Where KVM says whether it lets the processor translate twice, for AMD and for Intel. */
const PARAMETERS = ['/sys/module/kvm_amd/parameters/npt', '/sys/module/kvm_intel/parameters/ept'] as const;

/**
 * Whether the processor walks the guest's page tables itself, in memory that it translates once more, so that
 * a walk through a missing page is a vCPU's exit like any other access. Where KVM shadows them instead the
 * walk is an access of KVM's own. Blocks: never. Source: the kernel's kvm module parameters.
 */
export function hasTwoStagePaging(): boolean {
  if (process.arch === 'arm64') return true; // its KVM knows nothing else
  return PARAMETERS.some((file) => {
    try {
      return ['Y', '1'].includes(readFileSync(file, 'utf8').trim());
    } catch {
      return false; // that module is not loaded
    }
  });
}
