import { type AccessSite } from '../api/index.js';
import { type ModelMechanism } from '../backends/memory/index.js';
import { ERRNO } from '../backends/memory/errno.js';
import { type KernelSide, type Surroundings } from './definition.js';
import { GfnBitmap } from './gfn-bitmap.js';
import { defineUapi } from './uapi.js';
import { before, KERNEL_SITES, VCPU_SITES } from './vcpu-sites.js';

/** Nothing is left open: a slot is vacated or live. */
export type SlotOptions = Record<never, never>;

/** Which pages have a live slot; the bitmap is the slot table, a slot a page. */
const slotTable = (surroundings: Surroundings): GfnBitmap =>
  new GfnBitmap(surroundings, { publish: 'after' });

/** A vCPU leaves KVM_RUN with the address, and waits in its VMM for the slot to be live. */
const exiting = (name: string, slots: GfnBitmap): ModelMechanism => ({
  name,
  effect: 'exits',
  address: 'exact',
  outlivesHandler: true,
  obstacle: ({ page }) => (slots.isMissing(page) ? 'missing' : undefined),
  stop: (access, kind) => access.exit(kind),
  reenter: (access, kernel) => kernel.deliver(access, access.kind!, { attributed: true }),
  carryOut: (request, kernel) => slots.carryOut(request, kernel),
});

/** KVM's own access to a GFN that has no memory behind it. */
const failing = (name: string, slots: GfnBitmap): ModelMechanism => ({
  name,
  effect: 'errors',
  address: 'none',
  outlivesHandler: true,
  obstacle: ({ page }) => (slots.isMissing(page) ? 'missing' : undefined),
  stop: (access) => access.fail(ERRNO.EFAULT),
});

/** What a hole leaves open. */
export interface HoleOptions {
  /**
   * What a locked access comes to: `fail` as on arm64, where its syndrome does not describe it; `exit` as on x86, where
   * it is emulated as a read and a write, each served, and no longer atomic (which the model has no word for).
   */
  readonly atomics: 'fail' | 'exit';
}

const HOLE_SERVED: readonly AccessSite[] = ['vcpu-load', 'vcpu-store'];

function vacatedSlotSide(_options: SlotOptions, surroundings: Surroundings): KernelSide {
  const slots = slotTable(surroundings);
  return {
    sites: {
      ...before(VCPU_SITES, exiting('vacated-slot', slots)),
      // KVM goes through the slot's userspace_addr: nothing is mapped there, unless a userfaultfd watches it.
      ...(!surroundings.userfaultfd && before(KERNEL_SITES, failing('vacated-slot: userspace_addr', slots))),
    },
    discardedByPager: (page) => slots.discard(page),
    turnOff: 'one-slot',
  };
}

function memslotHoleSide({ atomics }: HoleOptions, surroundings: Surroundings): KernelSide {
  const slots = slotTable(surroundings);
  const served: readonly AccessSite[] = atomics === 'exit' ? [...HOLE_SERVED, 'vcpu-atomic'] : HOLE_SERVED;
  const refused: readonly AccessSite[] = atomics === 'exit' ? ['vcpu-fetch'] : ['vcpu-atomic', 'vcpu-fetch'];
  const injecting: ModelMechanism = {
    ...failing('memslot-hole: walk', slots),
    effect: 'injects',
    stop: (access) => access.inject(),
  };
  return {
    sites: {
      ...before(served, exiting('memslot-hole: KVM_EXIT_MMIO', slots)),
      ...before(refused, failing('memslot-hole: no emulation', slots)),
      ...before(['vcpu-walk'], injecting),
      // No memslot, no userspace_addr: a userfaultfd beside it does not see KVM's own accesses either.
      ...before(KERNEL_SITES, failing('memslot-hole: no slot', slots)),
    },
    discardedByPager: (page) => slots.discard(page),
    turnOff: 'one-slot',
  };
}

const IN_LINUX = {
  author: 'KVM',
  reference: 'KVM_SET_USER_MEMORY_REGION2, Documentation/virt/kvm/api.rst',
} as const;

/**
 * The model of what is real: a memslot bound to a guest_memfd that was closed has no page to give, so that a
 * vCPU's access leaves KVM_RUN with a memory fault; the slot is exchanged for one over real memory once the contents are
 * there. KVM's own accesses go through the slot's userspace_addr: they fail there, or wait where a userfaultfd
 * watches it. One slot a page here, exchanged while every vCPU is out.
 *
 * Source: Linux 6.18 and later, measured on x86-64 and arm64. Walks exit, as with two-stage translation.
 */
export const vacatedSlot = defineUapi<SlotOptions>({
  name: 'vacated-slot',
  source: {
    ...IN_LINUX,
    title: 'KVM memory slots on a closed guest_memfd',
    date: '2025',
    status: 'in Linux',
  },
  verbs: ['copy', 'zeropage', 'rwprotect', 'wake'],
  defaults: {},
  kernelSide: vacatedSlotSide,
});

/**
 * The model of what is real: no memslot at all, so that a vCPU's plain load or store is an emulated device access
 * (KVM_EXIT_MMIO). Code, atomics and page tables cannot be served so: they fail, or the guest sees an abort. KVM's own
 * accesses fail.
 *
 * Source: every KVM; Documentation/virt/kvm/api.rst, KVM_EXIT_MMIO.
 */
export const memslotHole = defineUapi<HoleOptions>({
  name: 'memslot-hole',
  source: { ...IN_LINUX, title: 'A hole between KVM memory slots', date: '2006', status: 'in Linux' },
  verbs: ['copy', 'zeropage', 'rwprotect', 'wake'],
  defaults: { atomics: 'fail' },
  kernelSide: memslotHoleSide,
});
