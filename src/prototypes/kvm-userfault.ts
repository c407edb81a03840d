import { type PageIndex } from '../api/index.js';
import { type ModelMechanism } from '../backends/memory/index.js';
import { type CConstant, type CStruct, type KernelSide, type Surroundings } from './definition.js';
import { GfnBitmap } from './gfn-bitmap.js';
import { defineUapi } from './uapi.js';
import { before, VCPU_SITES } from './vcpu-sites.js';

export interface KvmUserfaultOptions {
  /** When the bit is cleared: a store-release `after` the contents are written, or, the mistake, `before`. */
  readonly publish: 'after' | 'before';
  /** What the VMM does after setting bits late: `toggle` the memslot flag, or, the mistake, nothing. */
  readonly lateSet: 'toggle' | 'nothing';
  /** Whether KVM can read the bitmap. */
  readonly bitmap: 'readable' | 'unreadable';
}

const EFAULT = 14;

/** The memslot's bitmap, and the stage-2 mappings that make KVM forget to look at it. */
export class UserfaultSlot {
  readonly bitmap: GfnBitmap;
  readonly #readable: boolean;
  readonly #surroundings: Surroundings;
  /** Pages that are mapped at stage 2: no fault, and so no look at the bitmap. */
  readonly #mapped = new Set<PageIndex>();

  constructor({ publish, lateSet, bitmap }: KvmUserfaultOptions, surroundings: Surroundings) {
    this.#readable = bitmap === 'readable';
    this.#surroundings = surroundings;
    // Enabling the flag zaps the slot: everything faults anew and meets its bit.
    const onLate = (): void => void (lateSet === 'toggle' && this.#mapped.clear());
    this.bitmap = new GfnBitmap(surroundings, { publish, onLate });
  }

  /** A stage-2 access: mapped, it passes; else the bit is load-acquired. */
  readonly obstacle: ModelMechanism['obstacle'] = ({ page, write }, { memory }) => {
    if (this.#mapped.has(page)) return undefined;
    if (!this.#readable) return EFAULT; // bare, with no memory-fault information
    if (this.bitmap.isMissing(page)) return 'missing';
    // Beside a userfaultfd, get_user_pages() may have to wait yet: nothing is mapped until it has not.
    if (!this.#surroundings.userfaultfd || memory.obstacle(page, write) === undefined) this.#mapped.add(page);
    return undefined;
  };

  /** The MMU notifier: what leaves the VMM's mapping leaves stage 2. */
  discarded(page: PageIndex): void {
    this.#mapped.delete(page);
  }
}

function kvmUserfaultSide(options: KvmUserfaultOptions, surroundings: Surroundings): KernelSide {
  const slot = new UserfaultSlot(options, surroundings);
  const exits: ModelMechanism = {
    name: 'kvm-userfault',
    effect: 'exits',
    address: 'exact',
    outlivesHandler: true,
    obstacle: slot.obstacle,
    stop: (access, kind) => access.exit(kind),
    reenter: (access, kernel) => kernel.deliver(access, access.kind!, { attributed: true }),
    carryOut: (request, kernel) => slot.bitmap.carryOut(request, kernel),
    discarded: (page) => slot.discarded(page),
  };
  return {
    sites: before(VCPU_SITES, exits),
    discardedByPager: (page) => slot.bitmap.discard(page),
    // With the flag on, mappings are of 4 KiB.
    turnOff: 'flag-off',
  };
}

/** Bits and fields that KVM Userfault adds to the memslot and to the exit. */
export const USERFAULT_CONSTANTS: readonly CConstant[] = [
  { name: 'KVM_MEM_USERFAULT', value: 1 << 3, comment: 'flags of the memslot' },
  { name: 'KVM_MEMORY_EXIT_FLAG_USERFAULT', value: 1 << 4, comment: 'flags of the memory-fault exit' },
];

export const USERFAULT_SLOT: CStruct = {
  name: 'kvm_userspace_memory_region2_userfault',
  comment: 'struct kvm_userspace_memory_region2 with the bitmap in its padding; a set bit faults',
  fields: [
    { name: 'slot', type: 'u32' },
    { name: 'flags', type: 'u32' },
    { name: 'guest_phys_addr', type: 'u64' },
    { name: 'memory_size', type: 'u64' },
    { name: 'userspace_addr', type: 'u64' },
    { name: 'guest_memfd_offset', type: 'u64' },
    { name: 'guest_memfd', type: 'u32' },
    { name: 'pad1', type: 'u32' },
    { name: 'userfault_bitmap', type: 'u64', comment: 'address of one bit a page' },
    { name: 'pad2', type: 'u64', count: 13 },
  ],
};

/**
 * James Houghton's KVM Userfault: a memslot flag, and a bitmap in the VMM's memory that KVM looks at when a
 * vCPU's access is not mapped at stage 2. A bit that is set late does nothing to a mapped page until the
 * flag was toggled. KVM's own accesses are not intercepted.
 *
 * Source: series "KVM: Introduce KVM Userfault", v3, June 2025.
 */
export const kvmUserfault = defineUapi<KvmUserfaultOptions>({
  name: 'kvm-userfault',
  source: {
    title: 'KVM: Introduce KVM Userfault',
    author: 'James Houghton',
    date: '2025-06',
    reference: 'series v3',
    status: 'out of tree',
  },
  constants: USERFAULT_CONSTANTS,
  structs: [USERFAULT_SLOT],
  ioctls: [
    {
      name: 'KVM_SET_USER_MEMORY_REGION2_USERFAULT',
      on: 'vm',
      number: 0x49,
      direction: 'w',
      struct: 'kvm_userspace_memory_region2_userfault',
      does: 'KVM_SET_USER_MEMORY_REGION2 with the flag: enabling zaps the slot, and 4 KiB mappings only while it is on',
      errors: { EINVAL: 'the flag is unknown here, or the bitmap is misaligned' },
    },
  ],
  verbs: ['copy', 'zeropage', 'rwprotect', 'wake'],
  defaults: { publish: 'after', lateSet: 'toggle', bitmap: 'readable' },
  kernelSide: kvmUserfaultSide,
});
