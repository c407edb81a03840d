import { coverageOf } from '../../kvm/coverage.js';
import { type KvmBackend, makeKvmBackend } from '../../kvm/backend.js';
import { type KvmOptions } from '../../kvm/index.js';
import { hasTwoStagePaging } from '../../linux/index.js';
import { effectsOf } from './coverage.js';

/**
 * Demand paging by KVM's exits: a missing page makes KVM_RUN return, and the vCPU's thread waits for the page
 * in its exit handler. No other accessor is stopped: KVM's own accesses fail (EFAULT), and the VMM's threads
 * read unpopulated memory, as the coverage says; use `composite` where these access sites matter.
 *
 * Preconditions: `attach` comes after the VM's interrupt controller was created and before a vCPU runs; the
 * regions have no memslots yet; no process is started while the backend attaches or discards pages.
 * Blocks: `attach` for the creation of a memslot for each page; `discard` until the vCPUs are paused.
 * Errors: RangeError for invalid options. `attach`: NO_DEVICE, NO_PERMISSION, NOT_SUPPORTED (memory or
 * strategy that this kernel does not support), BAD_RANGE (too few slots; EEXIST: another memslot overlaps;
 * regions share memory), NOT_EMPTY, PAGE_VANISHED (see {@link RegionSpec.contents}), COVERAGE_GAP (a slot is
 * not vacated), NO_HUGE_PAGES, KERNEL.
 * Requires: KVM; Linux 6.18 with guest_memfd for vacated slots, any kernel for holes. Source: KVM's api.rst.
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
