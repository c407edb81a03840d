import { coverageOf } from '../../kvm/coverage.js';
import { type KvmBackend, makeKvmBackend } from '../../kvm/backend.js';
import { type KvmOptions } from '../../kvm/index.js';
import { hasTwoStagePaging } from '../../linux/index.js';
import { effectsOf } from './coverage.js';

/**
 * Demand paging owned by KVM: a missing page makes KVM_RUN return, and the vCPU's own thread waits for
 * it in its gate. Nobody else is stopped: KVM's own accesses fail (EFAULT), the VMM's see memory not yet filled,
 * as the coverage says; compose it (`composite`) where those classes count.
 *
 * Preconditions: `attach` comes after the VM's interrupt controller was made and before a vCPU runs; the
 * regions have no memslots yet; no process is started while it attaches or drops pages.
 * Blocks: `attach` for the creation of a slot a page; `withdraw` until the vCPUs stand.
 * Errors: RangeError for options out of bounds. `attach`: NO_DEVICE, NO_PERMISSION, NOT_SUPPORTED (memory or
 * strategy this kernel does not take), BAD_RANGE (too few slots; EEXIST: another slot overlaps; regions with
 * memory in common), NOT_EMPTY, PAGE_VANISHED (see {@link RegionSpec.contents}), COVERAGE_GAP (a slot that
 * should be vacated is not), NO_HUGE_PAGES, KERNEL.
 * Requires: KVM; vacated slots Linux 6.18 with guest_memfd, holes any. Source: KVM's api.rst.
 */
export const kvmExit = (options: KvmOptions): KvmBackend =>
  makeKvmBackend(
    {
      name: 'kvm-exit',
      mediation: 'none',
      coverage: (layout, strategy, chunk) =>
        coverageOf(effectsOf(strategy, hasTwoStagePaging()), layout, chunk),
    },
    options,
  );
