import { type PageIndex } from '../api/index.js';
import { type ModelKernel, type ModelMechanism } from '../backends/memory/index.js';
import { type KernelSide, type Surroundings } from './definition.js';
import { GfnBitmap } from './gfn-bitmap.js';
import { defineUapi } from './uapi.js';
import { before, KERNEL_SITES, VCPU_SITES } from './vcpu-sites.js';

export interface PresentBitmapOptions {
  /** `after`: contents, then the bit. `before`: the mistake. */
  readonly publish: 'after' | 'before';
  /** (d): whether KVM's own accesses wait at the choke point, fail there, or pass, as in a first version with vCPU exits only. */
  readonly kernelAccess: 'notify' | 'error' | 'none';
  /** (e): pages that one block mapping covers. */
  readonly blockPages: number;
}

const EFAULT = 14;

/** The blocks of (e): mapped huge when all their pages have become present, split when one no longer is. */
class BlockMappings {
  readonly #pages: number;
  readonly #huge = new Set<number>();

  constructor(pages: number) {
    this.#pages = pages;
  }

  isHuge(page: PageIndex): boolean {
    return this.#huge.has(Math.floor(page / this.#pages));
  }

  collapse(page: PageIndex, isMissing: (page: PageIndex) => boolean, kernel: ModelKernel): void {
    const block = Math.floor(page / this.#pages);
    const first = block * this.#pages;
    if (first + this.#pages > kernel.memory.layout.pageCount) return;
    for (let each = first; each < first + this.#pages; each++) if (isMissing(each)) return;
    this.#huge.add(block);
    kernel.trace?.({
      actor: { kind: 'kvm' },
      kind: 'mapped-as-block',
      because: 'last-page-present',
      page: first,
    });
  }

  split(page: PageIndex): void {
    this.#huge.delete(Math.floor(page / this.#pages));
  }
}

/** (a) to (e) inside the kernel. */
function presentBitmapSide(
  { publish, kernelAccess, blockPages }: PresentBitmapOptions,
  surroundings: Surroundings,
): KernelSide {
  const blocks = new BlockMappings(blockPages);
  // Marking a page non-present zaps its mapping: it takes effect at the next access.
  const bitmap = new GfnBitmap(surroundings, { publish, onLate: (page) => blocks.split(page) });
  const obstacle: ModelMechanism['obstacle'] = ({ page }) => (bitmap.isMissing(page) ? 'missing' : undefined);
  /** (c): KVM_RUN returns with the address. */
  const exits: ModelMechanism = {
    name: 'present-bitmap: KVM_RUN exit',
    effect: 'exits',
    address: 'exact',
    outlivesHandler: true,
    obstacle,
    stop: (access, kind) => access.exit(kind),
    reenter: (access, kernel) => kernel.deliver(access, access.kind!, { attributed: true }),
    carryOut: (request, kernel) => {
      const errno = bitmap.carryOut(request, kernel);
      if (errno === 0 && !bitmap.isMissing(request.page))
        blocks.collapse(request.page, (page) => bitmap.isMissing(page), kernel);
      return errno;
    },
    discarded: (page) => blocks.split(page),
  };
  /** (d): one choke point, __gfn_to_hva_many(), a descriptor to read from and a queue to wait in. */
  const notifies: ModelMechanism = {
    name: 'present-bitmap: choke point',
    effect: kernelAccess === 'error' ? 'errors' : 'blocks',
    address: kernelAccess === 'error' ? 'none' : 'exact',
    outlivesHandler: true,
    obstacle,
    stop: (access, kind, kernel) =>
      kernelAccess === 'error' ? access.fail(EFAULT) : kernel.deliver(access, kind, { attributed: true }),
  };
  return {
    sites: { ...before(VCPU_SITES, exits), ...(kernelAccess !== 'none' && before(KERNEL_SITES, notifies)) },
    discardedByPager: (page) => bitmap.discard(page),
  };
}

/**
 * David Matlack's KVM demand paging of November 2023: KVM keeps a bitmap of present GFNs and consults it for
 * vCPUs (exit) and, at one choke point, for its own accesses (notification and wait queue). The VMM writes
 * contents through its own mapping, which nothing guards.
 *
 * Source: message-id CALzav=d23P5uE=oYqMpjFohvn0CASMJxXB_XEOEi-jtqWcFTDA@mail.gmail.com, parts (a) to (e). No code was
 * posted: structures and numbers are this prototype's.
 */
export const presentBitmap = defineUapi<PresentBitmapOptions>({
  name: 'present-bitmap',
  source: {
    title: 'RFC: A KVM-specific alternative to UserfaultFD',
    author: 'David Matlack',
    date: '2023-11',
    reference: 'CALzav=d23P5uE=oYqMpjFohvn0CASMJxXB_XEOEi-jtqWcFTDA@mail.gmail.com',
    status: 'never posted as code',
  },
  constants: [
    { name: 'KVM_DEMAND_PAGING_ENABLE', value: 1, comment: 'flags of struct kvm_demand_paging' },
    { name: 'KVM_PRESENT', value: 1, comment: 'flags of struct kvm_mark_present; clear: mark non-present' },
    { name: 'KVM_DEMAND_PAGING_WRITE', value: 1, comment: 'flags of struct kvm_kernel_fault' },
  ],
  structs: [
    {
      name: 'kvm_demand_paging',
      comment:
        '(a) turns the bitmap of present GFNs on or off, all pages non-present, and (e) says how to collapse',
      fields: [
        { name: 'flags', type: 'u64' },
        { name: 'collapse_bytes', type: 'u64', comment: 'largest mapping to collapse into; 0: none' },
      ],
    },
    {
      name: 'kvm_mark_present',
      comment: '(b) marks GFNs',
      fields: [
        { name: 'gfn', type: 'u64' },
        { name: 'npages', type: 'u64' },
        { name: 'flags', type: 'u64' },
      ],
    },
    {
      name: 'kvm_kernel_fault',
      comment: "(d) read from the notification descriptor: an access of KVM's own that waits",
      fields: [
        { name: 'gfn', type: 'u64' },
        { name: 'npages', type: 'u64' },
        { name: 'flags', type: 'u64' },
      ],
    },
  ],
  ioctls: [
    {
      name: 'KVM_SET_DEMAND_PAGING',
      on: 'vm',
      number: 0xf0,
      direction: 'w',
      struct: 'kvm_demand_paging',
      does: 'turns demand paging on or off',
      errors: {
        EINVAL: 'unknown flags, or a size that is no mapping size',
        EBUSY: 'off, while an access waits',
      },
    },
    {
      name: 'KVM_MARK_PRESENT',
      on: 'vm',
      number: 0xf1,
      direction: 'w',
      struct: 'kvm_mark_present',
      does: 'marks GFNs present, waking their waiters, or non-present, zapping their mappings',
      errors: { EINVAL: 'unknown flags, or an empty or wrapping range', ENOENT: 'demand paging is off' },
    },
    {
      name: 'KVM_GET_DEMAND_PAGING_FD',
      on: 'vm',
      number: 0xf2,
      direction: 'none',
      does: "gives the descriptor that KVM's own accesses are read from",
      errors: { ENOENT: 'demand paging is off', EMFILE: 'no descriptor is left' },
    },
  ],
  verbs: ['copy', 'zeropage', 'rwprotect', 'wake'],
  defaults: { publish: 'after', kernelAccess: 'notify', blockPages: 512 },
  kernelSide: presentBitmapSide,
});
