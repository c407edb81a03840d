import { type PageIndex } from '../api/address.js';
import { DemandPagingError } from '../api/error.js';
import { ERRNO, type KvmVm, raw, systemError } from '../linux/index.js';
import { DIRTY_PAGE_BYTES, type DirtyPages, LOG_DIRTY } from './dirty-pages.js';
import { type SlotRegion } from './slot-region.js';

/** A run of pages under one slot, or, without a slot, a hole in the guest's memory. */
interface Extent {
  readonly page: PageIndex;
  readonly count: number;
  readonly slot: number;
  readonly live: boolean;
}

const GUEST_MEMFD_FLAGS = 3; // MMAP and INIT_SHARED: what makes a slot of it shared memory
const HOLE = -1;

/**
 * The memslots of the paged regions, and the only code that changes them. Missing pages lie under
 * vacated slots, one a page, so that a page goes live by two calls; or under none. Present pages lie
 * under live slots, neighbours that come together under one.
 *
 * Used by the slot thread only, inside the pause: between the deletion of a slot and the creation of
 * the next the range is a hole.
 */
export class SlotTable {
  readonly #vm: KvmVm;
  readonly #regions: readonly SlotRegion[];
  readonly #holes: boolean;
  readonly #dirty: DirtyPages | undefined;
  readonly #extents = new Map<PageIndex, Extent>();
  /** First page of the extent that a page lies in. */
  readonly #firstOf: Uint32Array;
  readonly #free: number[] = [];
  #changed = 0;

  /** Precondition: `slots` names at least one slot a page. */
  constructor(
    vm: KvmVm,
    regions: readonly SlotRegion[],
    slots: { readonly first: number; readonly count: number },
    holes: boolean,
    dirty?: DirtyPages,
  ) {
    this.#dirty = dirty;
    this.#vm = vm;
    this.#regions = regions;
    this.#holes = holes;
    this.#firstOf = new Uint32Array(regions.reduce((end, { page, count }) => Math.max(end, page + count), 0));
    for (let slot = slots.first + slots.count - 1; slot >= slots.first; slot--) this.#free.push(slot);
  }

  /** Slots created and deleted so far. */
  get changed(): number {
    return this.#changed;
  }

  /** Makes every page missing, under slots of `vacant`: the caller closes it afterwards, which vacates them. */
  start(vacant: number): void {
    for (const region of this.#regions) {
      for (let page = region.page; page < region.page + region.count; page++)
        this.#addVacant(region, page, vacant);
    }
  }

  /** Where in the file that vacates it a page lies. */
  offsetOf(page: PageIndex): number {
    let offset = 0;
    for (const region of this.#regions) {
      if (page < region.page + region.count) return offset + (page - region.page) * region.pageSize;
      offset += region.count * region.pageSize;
    }
    throw new RangeError(`page ${page} is outside every region`);
  }

  /** Shows a run of pages, all missing until now, to the guest. They lie in one region. */
  goLive(first: PageIndex, count: number): void {
    const region = this.#regionOf(first);
    for (let page = first; page < first + count; page++) this.#remove(this.#extentAt(page));
    this.#addLive(region, first, count);
  }

  /** Takes pages away again; live neighbours under the same slot get one of their own. */
  vacate(first: PageIndex, count: number, vacant: number): void {
    const region = this.#regionOf(first);
    for (let page = first; page < first + count;) {
      const extent = this.#extentAt(page);
      const end = Math.min(extent.page + extent.count, first + count);
      if (extent.live) {
        this.#remove(extent);
        if (extent.page < page) this.#addLive(region, extent.page, page - extent.page);
        const rest = extent.page + extent.count - end;
        if (rest > 0) this.#addLive(region, end, rest);
        for (let missing = page; missing < end; missing++) this.#addVacant(region, missing, vacant);
      }
      page = end;
    }
  }

  /** Gathers the logs of every live slot, which goes on logging. */
  gatherDirty(): void {
    for (const extent of this.#extents.values()) if (extent.live) this.#gather(extent);
  }

  /** Deletes every slot. */
  clear(): void {
    for (const extent of [...this.#extents.values()]) this.#remove(extent);
  }

  #regionOf(page: PageIndex): SlotRegion {
    const region = this.#regions.find(
      (candidate) => page >= candidate.page && page < candidate.page + candidate.count,
    );
    if (!region) throw new RangeError(`page ${page} is outside every region`);
    return region;
  }

  #extentAt(page: PageIndex): Extent {
    return this.#extents.get(this.#firstOf[page]!)!;
  }

  #record(extent: Extent): void {
    this.#extents.set(extent.page, extent);
    this.#firstOf.fill(extent.page, extent.page, extent.page + extent.count);
  }

  #addVacant(region: SlotRegion, page: PageIndex, vacant: number): void {
    if (this.#holes) return this.#record({ page, count: 1, slot: HOLE, live: false });
    const slot = this.#take();
    const { pageSize, whileMissing } = region;
    this.#set({
      slot,
      gpa: region.gpa + (page - region.page) * pageSize,
      length: pageSize,
      userspace: whileMissing + (page - region.page) * pageSize,
      guestMemfd: vacant,
      guestMemfdOffset: this.offsetOf(page),
    });
    this.#record({ page, count: 1, slot, live: false });
  }

  #addLive(region: SlotRegion, first: PageIndex, count: number): void {
    const slot = this.#take();
    const offset = (first - region.page) * region.pageSize;
    const file =
      region.guestMemfd < 0
        ? {}
        : { guestMemfd: region.guestMemfd, guestMemfdOffset: region.guestMemfdOffset + offset };
    this.#set({
      slot,
      gpa: region.gpa + offset,
      length: count * region.pageSize,
      userspace: region.address + offset,
      flags: this.#dirty ? LOG_DIRTY : 0,
      ...file,
    });
    this.#record({ page: first, count, slot, live: true });
  }

  #remove(extent: Extent): void {
    this.#extents.delete(extent.page);
    if (extent.slot === HOLE) return;
    if (extent.live) this.#gather(extent); // the log goes with the slot
    this.#set({ slot: extent.slot, gpa: 0, length: 0, userspace: 0 });
    this.#free.push(extent.slot);
  }

  #gather({ page, count, slot }: Extent): void {
    const { pageSize } = this.#regionOf(page);
    const first = this.offsetOf(page) / DIRTY_PAGE_BYTES;
    this.#dirty?.gather(this.#vm, slot, first, (count * pageSize) / DIRTY_PAGE_BYTES);
  }

  #take(): number {
    const slot = this.#free.pop();
    if (slot === undefined)
      throw new DemandPagingError('KERNEL', 'no memslot is left', {
        hint: 'Give the regions a larger pageSize, or more slots',
      });
    return slot;
  }

  #set(slot: Parameters<KvmVm['trySetSlot']>[0]): void {
    this.#changed++;
    const result = this.#vm.trySetSlot(slot);
    if (result === 0) return;
    throw systemError('ioctl KVM_SET_USER_MEMORY_REGION', -result, `KVM refused memslot ${slot.slot}`, {
      codes: { [ERRNO.EEXIST]: 'BAD_RANGE' },
      range: { start: BigInt(slot.gpa), length: BigInt(slot.length) },
      hint:
        result === -ERRNO.EEXIST
          ? "Another memslot of the VM overlaps the region: leave the paged regions' slots to this backend"
          : undefined,
    });
  }
}

/** A guest_memfd as vacated slots are made of; whoever makes one closes it before anything can fork. */
export const makeVacant = (vm: KvmVm, bytes: number): number => vm.createGuestMemfd(bytes, GUEST_MEMFD_FLAGS);
export const closeVacant = (fd: number): void => void raw.close(fd);
