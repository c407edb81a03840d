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
import { type CanaryPlace } from './canary.js';
import { DIRTY_PAGE_BYTES, DirtyPages } from './dirty-pages.js';
import { ExitBoard, type Swaps } from './exit-board.js';
import { type VcpuGateToken } from './gate.js';
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
   * What the thread of vCPU `vcpu` opens its gate with. Cloneable. Throws CLOSED while nothing is attached,
   * RangeError for a vCPU beyond the options' `vcpus`.
   */
  gate(vcpu: number): VcpuGateToken;
  /**
   * Shows the guest, and KVM itself, the pages of these ranges that are present, though no vCPU has asked:
   * a slot is changed only when one does. Call it before KVM reaches memory that nobody else would bring into
   * its sight. Waits until the slots are in place. Errors: BAD_RANGE, CLOSED, KERNEL.
   */
  publish(ranges: readonly GpaRange[]): Promise<void>;
  /**
   * The pages that vCPUs wrote since the last call, those whose slots have gone since included: bit `n % 8` of
   * byte `n / 8` for the `n`th 4096 bytes of the regions, in their order. Errors: NOT_SUPPORTED without `logWrites`,
   * CLOSED, KERNEL. Source: KVM's api.rst, KVM_GET_DIRTY_LOG.
   */
  writtenPages(): Promise<Uint8Array>;
  /** What changes of slots have cost so far. */
  readonly swaps: Swaps;
}

const CANARY_GPA = 0x4_0000_0000;
const CANARY_WINDOW = 0x20_0000;
const CANARY_SLOTS = 2;
const FIRST_SLOT = 16;

export function makeKvmBackend(flavour: KvmFlavour, options: KvmOptions): KvmBackend {
  const choice = completeOptions(options);
  let opened: Opened | undefined;
  const attached = (): Opened => {
    if (!opened || opened.board.closed)
      throw new DemandPagingError('CLOSED', `${flavour.name} is attached to nothing`);
    return opened;
  };
  return {
    name: flavour.name,
    probe: () => probeKvm(flavour.mediation),
    attach: async (layout, states = PageStates.create(layout.pageCount)) => {
      opened = await attach(layout, states, choice, flavour);
      return opened.attachment;
    },
    gate(vcpu) {
      const { board, regions, doorbell, strategy } = attached();
      if (!Number.isInteger(vcpu) || vcpu < 0 || vcpu >= choice.vcpus)
        throw new RangeError(`vCPU ${vcpu} of ${choice.vcpus}: raise the backend's vcpus`);
      return {
        board: board.token,
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
    get swaps() {
      return attached().board.swaps;
    },
  };
}

interface Opened {
  readonly attachment: Attachment;
  readonly board: ExitBoard;
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
    const board = ExitBoard.create(layout.pageCount, choice.vcpus);
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
      board: board.token,
      regions: regions.map(({ slot }) => slot),
      drops: regions.map(({ drop }): SlotThreadData['drops'][number] =>
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
      canary: strategy === 'vacated-slot' ? canaryPlace(vm, choice, slots, layout) : undefined,
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
      board,
      doorbell,
      regions,
      uffd,
      client,
      bitmaps,
      sweep: { vm: ownVm, run_bytes: kvm.run_bytes, slots, gates: !choice.hooks },
      keep,
      verbs: maskOf(supports.verbs),
      staging_bytes: choice.staging_bytes,
    });
    return { attachment, board, client, dirty, regions, doorbell, strategy };
  } catch (error) {
    for (const step of undo.reverse()) step();
    throw error;
  }
}

function chooseStrategy(vm: KvmVm, { strategy, userfault }: KvmChoice, mediation: Mediation): SlotStrategy {
  const vacatable = vm.sharesGuestMemfd;
  if (strategy === 'vacated-slot' && !vacatable) {
    throw new DemandPagingError('NOT_SUPPORTED', 'this VM takes no mappable, initially shared guest_memfd', {
      hint: 'Vacated slots need Linux 6.18; the memslot hole works on every kernel, for plain data',
    });
  }
  if (strategy === 'userfault-bitmap' && vm.check(userfault!.capability) === 0) {
    throw new DemandPagingError(
      'NOT_SUPPORTED',
      `this VM's kernel has no capability ${userfault!.capability}: no KVM Userfault`,
      { hint: 'No released kernel has it: give the numbers of a kernel that does, or take another strategy' },
    );
  }
  if (strategy === 'memslot-hole' && mediation === 'guest-memfd') {
    throw new DemandPagingError('NOT_SUPPORTED', 'guest_memfd memory is not paged through holes', {
      hint: "Leave strategy at 'auto'",
    });
  }
  return strategy === 'auto' ? (vacatable ? 'vacated-slot' : 'memslot-hole') : strategy;
}

function chooseSlots(
  vm: KvmVm,
  { slots, canary }: KvmChoice,
  layout: MemoryLayout,
  strategy: SlotStrategy,
): { readonly slots: { readonly first: number; readonly count: number }; readonly chunk: number } {
  const most = vm.check(KVM_CAP.NR_MEMSLOTS);
  const chosen = slots ?? { first: FIRST_SLOT, count: most - FIRST_SLOT };
  if (chosen.first + chosen.count > most)
    throw new DemandPagingError(
      'BAD_RANGE',
      `slots up to ${chosen.first + chosen.count - 1}, but this VM has ${most}`,
    );
  // A region is under one slot, whatever is missing of it.
  if (strategy === 'userfault-bitmap' && layout.regions.length <= chosen.count)
    return { slots: { first: chosen.first, count: layout.regions.length }, chunk: 1 };
  const forCanary = strategy === 'vacated-slot' && canary !== false ? CANARY_SLOTS : 0;
  const usable = chosen.count - forCanary;
  const chunk = chunkFor(layout.regions, usable);
  if (chunk === undefined) {
    throw new DemandPagingError(
      'BAD_RANGE',
      `${layout.regions.length} regions need a memslot each; there are ${usable}`,
      { hint: 'Give the backend more slots' },
    );
  }
  // No more numbers than chunks are ever used: the others stay the VMM's.
  const count = layout.regions.reduce((sum, { pageCount }) => sum + Math.ceil(pageCount / chunk), forCanary);
  return { slots: { first: chosen.first, count }, chunk };
}

function canaryPlace(
  vm: KvmVm,
  { canary }: KvmChoice,
  slots: { first: number; count: number },
  layout: MemoryLayout,
): CanaryPlace | undefined {
  if (canary === false) return undefined;
  if (process.arch !== 'x64') {
    throw new DemandPagingError('NOT_SUPPORTED', `there is no canary for ${process.arch}`, {
      hint: 'With canary: false, start no process while the backend attaches or drops pages',
    });
  }
  const highest = layout.regions.at(-1)!;
  const beyond = Math.ceil(Number(highest.gpa + highest.length) / CANARY_WINDOW) * CANARY_WINDOW;
  const vcpuId = canary?.vcpuId ?? vm.check(KVM_CAP.MAX_VCPUS) - 1;
  return {
    slot: slots.first + slots.count - CANARY_SLOTS,
    gpa: canary?.gpa ?? Math.max(CANARY_GPA, beyond),
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
  // A placeholder over guest_memfd pages is moved there, and stays registered.
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
  // The kernel has no huge zero page to install; without a userfaultfd zeros are simply written.
  const zero = !uffd || layout.regions.every(({ memory }) => memory !== 'hugetlb');
  const verbs: Verb[] = ['copy', 'wake'];
  if (zero) verbs.push('zeropage');
  if (poison) verbs.push('poison');
  if (!uffd) verbs.push('fail'); // a page fault cannot fail once; an exit can
  // A userfaultfd cannot keep accessors from what is mapped; what lives in a guest_memfd need not stay mapped.
  const freeze = mediation === 'userfaultfd' ? 'missing-only' : 'full';
  if (freeze === 'full') verbs.push('rwprotect');
  return Object.freeze<Supports>({
    verbs,
    faults: ['missing'],
    events: [],
    memory: mediation === 'guest-memfd' ? ['guest-memfd'] : ['anonymous', 'shmem', 'hugetlb'],
    threadIds: true,
    withdraw: true,
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
