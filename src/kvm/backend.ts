import { type GpaRange } from '../api/address.js';
import { type Coverage } from '../api/access.js';
import { type Attachment, type Backend } from '../api/backend.js';
import { type Supports } from '../api/capability.js';
import { DemandPagingError } from '../api/error.js';
import { type MemoryLayout } from '../api/layout.js';
import { PageStates } from '../api/page-states.js';
import { type Verb, VERB } from '../api/resolution.js';
import {
  duplicate,
  EventFd,
  Kvm,
  KVM_CAP,
  KVM_X86_QUIRK_SLOT_ZAP_ALL,
  KvmVm,
  raw,
  SharedBits,
  UFFD_FEATURE,
  UFFD_REGISTER_MODE,
  Userfaultfd,
  userfaultfdSupport,
} from '../linux/index.js';
import { KvmAttachment } from './attachment.js';
import { type VerificationPlace } from './slot-verification.js';
import { DIRTY_PAGE_BYTES, DirtyPages } from './dirty-pages.js';
import { SharedVcpuState, type MemslotUpdates } from './shared-vcpu-state.js';
import { type VcpuExitHandlerToken } from './exit-handler.js';
import { completeOptions, type KvmChoice, type KvmOptions } from './options.js';
import { bringRegion, checkRegion, type Mediation, type PagedRegion } from './paged-memory.js';
import { probeKvm } from './probe.js';
import { settleRegions } from './region-contents.js';
import { SlotClient } from './slot-client.js';
import { bitsOf, USERFAULT_EXIT_FLAG, USERFAULT_SLOT_FLAG } from './userfault-slots.js';
import { chunkFor } from './slot-region.js';
import { type SlotStrategy, type SlotThreadData } from './slot-thread.js';

/** What makes one backend of this family differ from another. */
export interface KvmFlavour {
  readonly name: string;
  readonly mediation: Mediation;
  /** `chunk`: pages that vCPUs find present or missing together. */
  coverage(layout: MemoryLayout, strategy: SlotStrategy, chunk: number): Coverage;
}

/** A backend whose vCPU faults are exits of KVM_RUN. */
export interface KvmBackend extends Backend {
  /**
   * The token with which the thread of vCPU `vcpu` opens its exit handler. Cloneable. Throws CLOSED while
   * nothing is attached, RangeError for a vCPU beyond the options' `vcpus`.
   */
  exitHandlerToken(vcpu: number): VcpuExitHandlerToken;
  /**
   * Maps the present pages of these ranges for the guest and for KVM itself, although no vCPU has accessed
   * them: without this call memslots are changed only when a vCPU faults. Call it before KVM itself accesses
   * memory that no vCPU has accessed. Resolves when the memslots are in place. Errors: BAD_RANGE, CLOSED,
   * KERNEL.
   */
  publish(ranges: readonly GpaRange[]): Promise<void>;
  /**
   * The pages that vCPUs wrote since the last call, including those whose memslots were deleted since: bit `n
   * % 8` of byte `n / 8` for the `n`th 4096 bytes of the regions, in their order. Errors: NOT_SUPPORTED
   * without `logWrites`, CLOSED, KERNEL. Source: KVM's api.rst, KVM_GET_DIRTY_LOG.
   */
  writtenPages(): Promise<Uint8Array>;
  /** The cost of memslot updates so far. */
  readonly memslotUpdates: MemslotUpdates;
}

const VERIFICATION_GPA = 0x4_0000_0000;
const VERIFICATION_WINDOW = 0x20_0000;
const VERIFICATION_SLOTS = 2;
const FIRST_SLOT = 16;

export function makeKvmBackend(flavour: KvmFlavour, options: KvmOptions): KvmBackend {
  const choice = completeOptions(options);
  let opened: Opened | undefined;
  const attached = (): Opened => {
    if (!opened || opened.shared.closed)
      throw new DemandPagingError('CLOSED', `${flavour.name} has no open attachment`);
    return opened;
  };
  return {
    name: flavour.name,
    probe: () => probeKvm(flavour.mediation),
    attach: async (layout, states = PageStates.create(layout.pageCount)) => {
      opened = await attach(layout, states, choice, flavour);
      return opened.attachment;
    },
    exitHandlerToken(vcpu) {
      const { shared, regions, doorbell, strategy } = attached();
      if (!Number.isInteger(vcpu) || vcpu < 0 || vcpu >= choice.vcpus)
        throw new RangeError(
          `vCPU ${vcpu} is not in 0..${choice.vcpus - 1}; raise the backend's vcpus option`,
        );
      return {
        shared: shared.token,
        regions: regions.map(({ slot }) => slot),
        doorbell: doorbell.fd,
        vcpu,
        mmio: strategy === 'memslot-hole',
        exitFlag: strategy === 'userfault-bitmap' ? (choice.userfault?.exitFlag ?? USERFAULT_EXIT_FLAG) : 0,
      };
    },
    async publish(ranges) {
      const { attachment, client } = attached();
      for (const pages of ranges.flatMap((range) => attachment.layout.pagesOf(range)))
        await client.publish(pages);
    },
    async writtenPages() {
      const { client, dirty } = attached();
      if (!dirty)
        throw new DemandPagingError('NOT_SUPPORTED', 'writes are not logged', {
          hint: 'Attach with logWrites',
        });
      await client.gather();
      return dirty.take();
    },
    get memslotUpdates() {
      return attached().shared.memslotUpdates;
    },
  };
}

interface Opened {
  readonly attachment: Attachment;
  readonly shared: SharedVcpuState;
  readonly client: SlotClient;
  readonly dirty: DirtyPages | undefined;
  readonly regions: readonly PagedRegion[];
  readonly doorbell: EventFd;
  readonly strategy: SlotStrategy;
}

async function attach(
  layout: MemoryLayout,
  states: PageStates,
  choice: KvmChoice,
  flavour: KvmFlavour,
): Promise<Opened> {
  const { mediation } = flavour;
  for (const region of layout.regions) checkRegion(region, mediation);
  if (choice.logWrites && mediation === 'guest-memfd') {
    throw new DemandPagingError('NOT_SUPPORTED', 'KVM does not log writes to guest_memfd memory');
  }
  using kvm = Kvm.open();
  using vm = new KvmVm(duplicate(choice.vm), kvm.run_bytes);
  const strategy = chooseStrategy(vm, choice, mediation);
  const { slots, chunk } = chooseSlots(vm, choice, layout, strategy);
  const undo: (() => void)[] = [];
  try {
    const regions = layout.regions.map((region) => {
      const paged = bringRegion(region, mediation, vm, chunk);
      undo.push(() => paged.giveBack());
      return paged;
    });
    const uffd = mediation === 'none' ? undefined : openUserfaultfd(layout, regions);
    if (uffd) undo.push(() => uffd.close());
    settleRegions(layout, regions, states, uffd !== undefined);
    const shared = SharedVcpuState.create(layout.pageCount, choice.vcpus);
    const doorbell = EventFd.create();
    undo.push(() => doorbell.close());
    if (choice.zapOnlyTheSlot && process.arch === 'x64') zapOnlyTheSlot(vm);
    const basePages = layout.regions.reduce((sum, { length }) => sum + Number(length), 0) / DIRTY_PAGE_BYTES;
    const sharedDirty = DirtyPages.share(basePages);
    const dirty = choice.logWrites ? new DirtyPages(sharedDirty, basePages) : undefined;
    const bitmaps = strategy === 'userfault-bitmap' ? regions.map(bitmapOf) : undefined;
    undo.push(() => bitmaps?.forEach((bits) => bits.free()));
    const ownVm = duplicate(choice.vm);
    undo.push(() => void raw.close(ownVm));
    const client = await SlotClient.start({
      shared: shared.token,
      regions: regions.map(({ slot }) => slot),
      discardMethods: regions.map(({ drop }): SlotThreadData['discardMethods'][number] =>
        drop.kind === 'guest-memfd' ? { ...drop, uffd: uffd!.fd } : drop,
      ),
      vm: ownVm,
      run_bytes: kvm.run_bytes,
      doorbell: doorbell.fd,
      slots,
      strategy,
      userfault: bitmaps && {
        flag: choice.userfault?.slotFlag ?? USERFAULT_SLOT_FLAG,
        bitmaps: bitmaps.map(({ address }) => address),
      },
      verification: strategy === 'vacated-slot' ? verificationPlace(vm, choice, slots, layout) : undefined,
      hooks: choice.hooks,
      dirty: dirty && sharedDirty,
    });
    const mapped = layout.mappedAt(regions.map(({ place }) => place));
    const keep = layout.regions.every((region) => region.hva !== undefined);
    const coverage = flavour.coverage(mapped, strategy, chunk);
    const supports = supportsOf(flavour, mapped, uffd);
    const attachment = new KvmAttachment({
      layout: mapped,
      coverage,
      supports,
      shared,
      doorbell,
      regions,
      uffd,
      client,
      bitmaps,
      sweep: { vm: ownVm, run_bytes: kvm.run_bytes, slots, pausable: !choice.hooks },
      keep,
      verbs: maskOf(supports.verbs),
      staging_bytes: choice.staging_bytes,
    });
    return { attachment, shared, client, dirty, regions, doorbell, strategy };
  } catch (error) {
    for (const step of undo.reverse()) step();
    throw error;
  }
}

function chooseStrategy(vm: KvmVm, { strategy, userfault }: KvmChoice, mediation: Mediation): SlotStrategy {
  const vacatable = vm.sharesGuestMemfd;
  if (strategy === 'vacated-slot' && !vacatable) {
    throw new DemandPagingError(
      'NOT_SUPPORTED',
      'this VM supports no mappable, initially shared guest_memfd',
      {
        hint: 'Vacated slots need Linux 6.18; memslot-hole works on every kernel, for plain loads and stores',
      },
    );
  }
  if (strategy === 'userfault-bitmap' && vm.check(userfault!.capability) === 0) {
    throw new DemandPagingError(
      'NOT_SUPPORTED',
      `the kernel lacks KVM Userfault (capability ${userfault!.capability})`,
      {
        hint: 'No released kernel has it: give the numbers of a kernel that has it, or choose another strategy',
      },
    );
  }
  if (strategy === 'memslot-hole' && mediation === 'guest-memfd') {
    throw new DemandPagingError('NOT_SUPPORTED', 'guest_memfd memory cannot be paged with memslot-hole', {
      hint: "Leave strategy at 'auto'",
    });
  }
  return strategy === 'auto' ? (vacatable ? 'vacated-slot' : 'memslot-hole') : strategy;
}

function chooseSlots(
  vm: KvmVm,
  { slots, verifySlots }: KvmChoice,
  layout: MemoryLayout,
  strategy: SlotStrategy,
): { readonly slots: { readonly first: number; readonly count: number }; readonly chunk: number } {
  const most = vm.check(KVM_CAP.NR_MEMSLOTS);
  const chosen = slots ?? { first: FIRST_SLOT, count: most - FIRST_SLOT };
  if (chosen.first + chosen.count > most)
    throw new DemandPagingError(
      'BAD_RANGE',
      `the option slots reaches number ${chosen.first + chosen.count - 1}, but this VM has ${most} memslots`,
    );
  // A region lies under one slot, with any of its pages missing.
  if (strategy === 'userfault-bitmap' && layout.regions.length <= chosen.count)
    return { slots: { first: chosen.first, count: layout.regions.length }, chunk: 1 };
  const forVerification = strategy === 'vacated-slot' && verifySlots !== false ? VERIFICATION_SLOTS : 0;
  const usable = chosen.count - forVerification;
  const chunk = chunkFor(layout.regions, usable);
  if (chunk === undefined) {
    throw new DemandPagingError(
      'BAD_RANGE',
      `${layout.regions.length} regions need a memslot each, but only ${usable} are available`,
      { hint: 'Give the backend more slots' },
    );
  }
  // At most one number for each chunk is used; the others stay the VMM's.
  const count = layout.regions.reduce(
    (sum, { pageCount }) => sum + Math.ceil(pageCount / chunk),
    forVerification,
  );
  return { slots: { first: chosen.first, count }, chunk };
}

function verificationPlace(
  vm: KvmVm,
  { verifySlots }: KvmChoice,
  slots: { first: number; count: number },
  layout: MemoryLayout,
): VerificationPlace | undefined {
  if (verifySlots === false) return undefined;
  if (process.arch !== 'x64') {
    throw new DemandPagingError('NOT_SUPPORTED', `slot verification is not available on ${process.arch}`, {
      hint: 'Set verifySlots: false, and start no process while the backend attaches or discards pages',
    });
  }
  const highest = layout.regions.at(-1)!;
  const beyond = Math.ceil(Number(highest.gpa + highest.length) / VERIFICATION_WINDOW) * VERIFICATION_WINDOW;
  const vcpuId = verifySlots?.vcpuId ?? vm.check(KVM_CAP.MAX_VCPUS) - 1;
  return {
    slot: slots.first + slots.count - VERIFICATION_SLOTS,
    gpa: verifySlots?.gpa ?? Math.max(VERIFICATION_GPA, beyond),
    vcpuId,
  };
}

const bitmapOf = ({ slot }: PagedRegion): SharedBits =>
  SharedBits.create(bitsOf(slot, { first: slot.page, count: slot.count }).count);

function zapOnlyTheSlot(vm: KvmVm): void {
  const quirks = vm.check(KVM_CAP.DISABLE_QUIRKS2);
  if (quirks & KVM_X86_QUIRK_SLOT_ZAP_ALL) vm.enable(KVM_CAP.DISABLE_QUIRKS2, [KVM_X86_QUIRK_SLOT_ZAP_ALL]);
}

function openUserfaultfd(layout: MemoryLayout, regions: readonly PagedRegion[]): Userfaultfd {
  const kinds = new Set(layout.regions.map(({ memory }) => memory));
  const { mask } = userfaultfdSupport();
  // A placeholder is moved over guest_memfd pages by mremap(2) and has to stay registered.
  const moves = kinds.has('guest-memfd') ? UFFD_FEATURE.EVENT_REMAP : 0;
  const wanted = UFFD_FEATURE.THREAD_ID | UFFD_FEATURE.POISON | UFFD_FEATURE.MOVE;
  const needed =
    moves |
    (kinds.has('shmem') ? UFFD_FEATURE.MISSING_SHMEM : 0) |
    (kinds.has('hugetlb') ? UFFD_FEATURE.MISSING_HUGETLBFS : 0);
  const uffd = Userfaultfd.open({ features: needed | (wanted & Number(mask & BigInt(wanted))) });
  try {
    for (const { slot } of regions)
      uffd.register(slot.address, slot.count * slot.pageSize, UFFD_REGISTER_MODE.MISSING);
  } catch (error) {
    uffd.close();
    throw error;
  }
  return uffd;
}

function supportsOf(
  { mediation }: KvmFlavour,
  layout: MemoryLayout,
  uffd: Userfaultfd | undefined,
): Supports {
  const poison = !uffd || (uffd.enabled & UFFD_FEATURE.POISON) !== 0;
  // The kernel installs no zero page in hugetlb memory; without a userfaultfd zeros are written.
  const zero = !uffd || layout.regions.every(({ memory }) => memory !== 'hugetlb');
  const verbs: Verb[] = ['copy', 'wake'];
  if (zero) verbs.push('zeropage');
  if (poison) verbs.push('poison');
  if (!uffd) verbs.push('fail'); // an exit can fail once; a page fault cannot
  // A userfaultfd does not stop accessors of mapped pages; pages in a guest_memfd can be unmapped with their
  // contents.
  const freeze = mediation === 'userfaultfd' ? 'missing-only' : 'full';
  if (freeze === 'full') verbs.push('rwprotect');
  return Object.freeze<Supports>({
    verbs,
    faults: ['missing'],
    events: [],
    memory: mediation === 'guest-memfd' ? ['guest-memfd'] : ['anonymous', 'shmem', 'hugetlb'],
    threadIds: true,
    discard: true,
    freeze,
    directCopy: true,
    install: 'copy',
    fill: false,
    residency: true,
    changeRegions: false,
    stops: uffd ? 'mixed' : 'exits',
  });
}

const maskOf = (verbs: readonly Verb[]): number => verbs.reduce((mask, verb) => mask | (1 << VERB[verb]), 0);
