import { type PageIndex, type PageRange } from '../api/address.js';
import { DemandPagingError } from '../api/error.js';
import { type KvmVm } from '../linux/index.js';
import { DIRTY_PAGE_BYTES, type DirtyPages, LOG_DIRTY } from './dirty-pages.js';
import { refusedSlot } from './refused-slot.js';
import { chunksAround, regionOf, type SlotRegion } from './slot-region.js';

/** A run of whole chunks under one memslot, or a hole under none. A missing extent is one chunk. */
interface Extent {
  readonly page: PageIndex;
  readonly count: number;
  readonly slot: number;
  readonly mapped: boolean;
}

/** What is mapped for the guest of the paged regions, whichever strategy keeps it from the rest. */
export interface GuestMapping {
  /** Slots created and deleted so far. */
  readonly changed: number;
  start(vacant: number): void;
  map(pages: PageRange): void;
  vacate(pages: PageRange, vacant: number): PageRange;
  bindAgain(pages: PageRange, vacant: number): void;
  gatherDirty(): void;
  clearMissing(): void;
  clear(): void;
}

/** What a table of slots asks of a VM. */
export type SlotVm = Pick<KvmVm, 'trySetSlot' | 'dirtyLog'>;

const HOLE = -1;
/**
 * Neighbours are joined up to this many bytes, at a multiple of it: what KVM maps by one entry, given huge
 * pages.
 */
const JOINED_BYTES = 0x20_0000;

/**
 * The memslots of the paged regions, and the only code that changes them. Missing pages lie under vacated
 * slots, one for each chunk, so that a chunk is mapped by two calls; or under none. Present pages lie under
 * mapped slots: chunks that are mapped together share one, which is joined with those neighbours that are no
 * longer than itself, so that a page moves to another slot only as often as its slot doubles.
 *
 * There are never more slots than chunks. Used by the slot thread only, in a pause: between the deletion of a
 * slot and the creation of the next the range is a hole.
 */
export class SlotTable implements GuestMapping {
  readonly #vm: SlotVm;
  readonly #regions: readonly SlotRegion[];
  readonly #holes: boolean;
  readonly #dirty: DirtyPages | undefined;
  readonly #extents = new Map<PageIndex, Extent>();
  /** First page of the extent that a page lies in. */
  readonly #firstOf: Uint32Array;
  readonly #free: number[] = [];
  #changed = 0;

  /** Precondition: `slots` names at least one slot a chunk. */
  constructor(
    vm: SlotVm,
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

  /** The runs of pages that are mapped for the guest, each under a slot of its own, in no order. */
  get mapped(): readonly PageRange[] {
    return [...this.#extents.values()]
      .filter(({ mapped }) => mapped)
      .map(({ page: first, count }) => ({ first, count }));
  }

  /**
   * Makes every page missing, under slots bound to `vacant`: the caller closes it afterwards, which vacates
   * them.
   */
  start(vacant: number): void {
    for (const region of this.#regions) {
      for (let page = region.page; page < region.page + region.count; page += region.chunk)
        this.#addVacant(region, page, vacant);
    }
  }

  /** Offset of a page in the file that its slot is bound to while it is missing. */
  offsetOf(page: PageIndex): number {
    let offset = 0;
    for (const region of this.#regions) {
      if (page < region.page + region.count) return offset + (page - region.page) * region.pageSize;
      offset += region.count * region.pageSize;
    }
    throw new RangeError(`page ${page} is outside every region`);
  }

  /** Maps whole chunks for the guest. Preconditions: all are missing; they lie in one region. */
  map(pages: PageRange): void {
    const region = this.#regionOf(pages.first);
    const end = pages.first + pages.count;
    for (let page = pages.first; page < end; page += region.chunk) {
      const extent = this.#extentAt(page);
      if (extent.mapped) throw new RangeError(`page ${page} is already mapped`);
      this.#remove(extent);
    }
    const joined = this.#join(region, pages);
    this.#addMapped(region, joined.first, joined.count);
  }

  /**
   * Unmaps the chunks that these pages lie in and returns them. Mapped neighbours under the same slot get a
   * slot of their own.
   */
  vacate(pages: PageRange, vacant: number): PageRange {
    const region = this.#regionOf(pages.first);
    const chunks = chunksAround(region, pages);
    const stop = chunks.first + chunks.count;
    for (let page = chunks.first; page < stop;) {
      const extent = this.#extentAt(page);
      const end = Math.min(extent.page + extent.count, stop);
      if (extent.mapped) {
        this.#remove(extent);
        if (extent.page < page) this.#addMapped(region, extent.page, page - extent.page);
        const rest = extent.page + extent.count - end;
        if (rest > 0) this.#addMapped(region, end, rest);
        for (let missing = page; missing < end; missing += region.chunk)
          this.#addVacant(region, missing, vacant);
      }
      page = end;
    }
    return chunks;
  }

  /** Replaces the slots of those of these pages that are missing by slots bound to another file. */
  bindAgain({ first, count }: PageRange, vacant: number): void {
    const missing = [...this.#extents.values()].filter(
      (extent) => !extent.mapped && extent.page < first + count && extent.page + extent.count > first,
    );
    for (const extent of missing) {
      this.#remove(extent);
      this.#addVacant(this.#regionOf(extent.page), extent.page, vacant);
    }
  }

  /** Gathers the dirty log of every mapped slot; logging continues. */
  gatherDirty(): void {
    for (const extent of this.#extents.values()) if (extent.mapped) this.#gather(extent);
  }

  /**
   * Deletes the slots of missing pages: an access finds nothing there, not even a file that a process still
   * holds.
   */
  clearMissing(): void {
    this.#removeAll([...this.#extents.values()].filter(({ mapped }) => !mapped));
  }

  /** Deletes every slot. */
  clear(): void {
    this.#removeAll([...this.#extents.values()]);
  }

  /** Deletes all that KVM lets it, then throws the first error. */
  #removeAll(extents: readonly Extent[]): void {
    const refused: unknown[] = [];
    for (const extent of extents) {
      try {
        this.#remove(extent);
      } catch (thrown) {
        refused.push(thrown);
      }
    }
    if (refused.length > 0) throw refused[0];
  }

  /** Removes the mapped neighbours that a run is joined with. */
  #join(region: SlotRegion, pages: PageRange): PageRange {
    let { first, count } = pages;
    for (;;) {
      const before = first > region.page ? this.#extentAt(first - 1) : undefined;
      const after = first + count < region.page + region.count ? this.#extentAt(first + count) : undefined;
      const neighbour = [before, after].find((extent) => extent && this.#joins(region, extent, first, count));
      if (!neighbour) return { first, count };
      this.#remove(neighbour);
      first = Math.min(first, neighbour.page);
      count += neighbour.count;
    }
  }

  #joins(region: SlotRegion, neighbour: Extent, first: PageIndex, count: number): boolean {
    if (!neighbour.mapped || neighbour.count > count) return false;
    const block = (page: PageIndex): number =>
      Math.floor((region.gpa + (page - region.page) * region.pageSize) / JOINED_BYTES);
    const from = Math.min(first, neighbour.page);
    return block(from) === block(from + count + neighbour.count - 1);
  }

  #regionOf(page: PageIndex): SlotRegion {
    const region = regionOf(this.#regions, page);
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
    const { pageSize, whileMissing } = region;
    const { count } = chunksAround(region, { first: page, count: 1 });
    if (this.#holes) return this.#record({ page, count, slot: HOLE, mapped: false });
    const slot = this.#take();
    this.#set({
      slot,
      gpa: region.gpa + (page - region.page) * pageSize,
      length: count * pageSize,
      userspace: whileMissing + (page - region.page) * pageSize,
      guestMemfd: vacant,
      guestMemfdOffset: this.offsetOf(page),
    });
    this.#record({ page, count, slot, mapped: false });
  }

  #addMapped(region: SlotRegion, first: PageIndex, count: number): void {
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
    this.#record({ page: first, count, slot, mapped: true });
  }

  /**
   * Deletes a slot, even if its log is unavailable. A slot that KVM refuses to delete stays recorded for
   * {@link clear}.
   */
  #remove(extent: Extent): void {
    if (extent.slot === HOLE) return void this.#extents.delete(extent.page);
    try {
      if (extent.mapped) this.#gather(extent); // the log goes with the slot
    } finally {
      this.#set({ slot: extent.slot, gpa: 0, length: 0, userspace: 0 });
      this.#extents.delete(extent.page);
      this.#free.push(extent.slot);
    }
  }

  #gather({ page, count, slot }: Extent): void {
    const { pageSize } = this.#regionOf(page);
    const first = this.offsetOf(page) / DIRTY_PAGE_BYTES;
    this.#dirty?.gather(this.#vm, slot, first, (count * pageSize) / DIRTY_PAGE_BYTES);
  }

  #take(): number {
    const slot = this.#free.pop();
    if (slot === undefined)
      throw new DemandPagingError('KERNEL', 'all memslots are in use', {
        hint: 'Give the regions a larger pageSize, or more slots',
      });
    return slot;
  }

  #set(slot: Parameters<KvmVm['trySetSlot']>[0]): void {
    this.#changed++;
    const result = this.#vm.trySetSlot(slot);
    if (result === 0) return;
    throw refusedSlot(this.#vm, slot, -result);
  }
}
