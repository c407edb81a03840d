import { type PageIndex } from '../api/index.js';
import { type ModelAccess, type ModelMechanism } from '../backends/memory/index.js';
import { type KernelSide, type Surroundings } from './definition.js';
import { USERFAULT_CONSTANTS, USERFAULT_SLOT, UserfaultSlot } from './kvm-userfault.js';
import { defineUapi } from './uapi.js';
import { VCPU_SITES } from './vcpu-sites.js';

export interface AsyncPfOptions {
  /** `token`: each fault is an exit with a token. `ring`: it is written to a ring of the vCPU's and nothing exits, unless the ring is full. */
  readonly mode: 'token' | 'ring';
  /** What a ready that comes before its token was accepted does: it is `kept`, or, the mistake, `dropped`. */
  readonly earlyReady: 'kept' | 'dropped';
  readonly ringEntries: number;
}

const RING_ENTRIES = 64;
const SLOT = { publish: 'after', lateSet: 'toggle', bitmap: 'readable' } as const;

/** Per-vCPU rings: who has an entry of which. */
class Rings {
  readonly #entries = new Map<number, Set<ModelAccess>>();
  readonly #capacity: number;

  constructor(capacity: number) {
    this.#capacity = capacity;
  }

  /** Whether the access has an entry, or can have one. */
  hasRoom(access: ModelAccess): boolean {
    const ring = this.#of(access);
    return ring.has(access) || ring.size < this.#capacity;
  }

  push(access: ModelAccess): void {
    this.#of(access).add(access);
  }

  /** The complete eventfd: entries of the page are free again. */
  complete(page: PageIndex): void {
    for (const ring of this.#entries.values())
      for (const entry of ring) if (entry.page === page) ring.delete(entry);
  }

  #of({ vcpu = 0 }: ModelAccess): Set<ModelAccess> {
    let ring = this.#entries.get(vcpu);
    if (!ring) this.#entries.set(vcpu, (ring = new Set()));
    for (const entry of ring) if (entry.ended) ring.delete(entry);
    return ring;
  }
}

/** A fault is an exit with a token; back in the kernel, the token accepted, the access is parked until it is ready. */
function byToken(slot: UserfaultSlot, earlyReady: AsyncPfOptions['earlyReady']): ModelMechanism {
  const dropped = earlyReady === 'dropped';
  return {
    name: 'async-pf: token',
    effect: 'exits',
    address: 'exact',
    outlivesHandler: true,
    // A vCPU that comes back to accept looks whether its token is ready already; or, the mistake, it does not.
    obstacle: (access, kernel) =>
      dropped && access.state === 'exited' ? access.kind : slot.obstacle(access, kernel),
    stop: (access, kind, kernel) => {
      access.exit(kind);
      // The VMM has the token, and may bring the page, before the vCPU comes back.
      if (dropped) kernel.queue.addFault(access, true);
    },
    reenter: (access, kernel) =>
      dropped ? access.block(access.kind!) : kernel.deliver(access, access.kind!, { attributed: true }),
    discarded: (page) => slot.discarded(page),
  };
}

/** A fault is an entry in the vCPU's ring, and nothing exits; where the ring is full, it is left to the token. */
const byRing = (slot: UserfaultSlot, rings: Rings): ModelMechanism => ({
  name: 'async-pf: ring',
  effect: 'blocks',
  address: 'exact',
  outlivesHandler: true,
  queue: 'own',
  obstacle: (access, kernel) => {
    const obstacle = slot.obstacle(access, kernel);
    return obstacle === 'missing' && !rings.hasRoom(access) ? undefined : obstacle;
  },
  stop: (access, kind, kernel) => {
    rings.push(access);
    kernel.deliver(access, kind, { attributed: true });
  },
});

function asyncPfSide(
  { mode, earlyReady, ringEntries }: AsyncPfOptions,
  surroundings: Surroundings,
): KernelSide {
  const slot = new UserfaultSlot(SLOT, surroundings);
  const rings = new Rings(ringEntries);
  const token: ModelMechanism = {
    ...byToken(slot, earlyReady),
    carryOut: (request, kernel) => {
      const errno = slot.bitmap.carryOut(request, kernel);
      if (errno === 0) rings.complete(request.page);
      return errno;
    },
  };
  const chain = mode === 'ring' ? [byRing(slot, rings), token] : [token];
  return {
    sites: Object.fromEntries(VCPU_SITES.map((site) => [site, chain])),
    discardedByPager: (page) => slot.bitmap.discard(page),
    turnOff: 'flag-off',
  };
}

/**
 * Nikita Kalyazin's asynchronous page faults for user space: the exit of a missing page carries a token; the
 * VMM accepts it, the guest runs something else, and any thread says ready. In the exitless mode
 * faults go through a ring of each vCPU's with two eventfds, notify and complete. Presence is KVM Userfault's
 * bitmap here, and KVM's own accesses are not intercepted.
 *
 * Source: prototypes of 2024 to 2026 on top of KVM Userfault. Names of the ioctl and of the ring are this prototype's.
 */
export const asyncPf = defineUapi<AsyncPfOptions>({
  name: 'async-pf',
  source: {
    title: 'KVM: asynchronous page faults to user space',
    author: 'Nikita Kalyazin',
    date: '2024 to 2026',
    reference: 'on top of KVM Userfault',
    status: 'prototype',
  },
  constants: [
    ...USERFAULT_CONSTANTS,
    { name: 'KVM_MEMORY_EXIT_FLAG_ASYNC_PF_USER', value: 1 << 5, comment: 'in: it can wait; out: accepted' },
    { name: 'KVM_ASYNC_PF_RING_ENTRIES', value: RING_ENTRIES },
  ],
  structs: [
    USERFAULT_SLOT,
    {
      name: 'kvm_async_pf_fault',
      comment: 'memory_fault of struct kvm_run, with the token',
      fields: [
        { name: 'flags', type: 'u64' },
        { name: 'gpa', type: 'u64' },
        { name: 'size', type: 'u64' },
        { name: 'token', type: 'u32' },
        { name: 'pad', type: 'u32' },
      ],
    },
    {
      name: 'kvm_async_pf_ready',
      fields: [
        { name: 'token', type: 'u32' },
        { name: 'pad', type: 'u32' },
      ],
    },
    {
      name: 'kvm_async_pf_entry',
      comment: "an entry of a vCPU's ring",
      fields: [
        { name: 'gpa', type: 'u64' },
        { name: 'flags', type: 'u64' },
      ],
    },
  ],
  ioctls: [
    {
      name: 'KVM_ASYNC_PF_USER_READY',
      on: 'vcpu',
      number: 0xf4,
      direction: 'w',
      struct: 'kvm_async_pf_ready',
      does: 'says that the page of a token is there; from any thread',
      errors: { ENOENT: 'no such token waits' },
    },
  ],
  verbs: ['copy', 'zeropage', 'wake'],
  defaults: { mode: 'token', earlyReady: 'kept', ringEntries: RING_ENTRIES },
  kernelSide: asyncPfSide,
});
