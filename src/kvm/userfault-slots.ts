import { type PageRange } from '../api/address.js';
import { DemandPagingError } from '../api/error.js';
import { ERRNO, pageSize, SharedBits } from '../linux/index.js';
import { isNumberTaken, refusedSlot } from './refused-slot.js';
import { regionOf, type SlotRegion } from './slot-region.js';
import { type GuestMapping, type SlotVm } from './slot-table.js';

/** The numbers of a kernel with KVM Userfault, which no released kernel has. */
export interface UserfaultNumbers {
  /** Of KVM_CHECK_EXTENSION. */
  readonly capability: number;
  /** KVM_MEM_USERFAULT. Default: bit 3. */
  readonly slotFlag?: number | undefined;
  /** KVM_MEMORY_EXIT_FLAG_USERFAULT. Default: bit 4. */
  readonly exitFlag?: number | undefined;
}

export const USERFAULT_SLOT_FLAG = 1 << 3;
export const USERFAULT_EXIT_FLAG = 1 << 4;

/** The bits of a run of a region's pages: one for each base page. */
export function bitsOf(region: SlotRegion, { first, count }: PageRange): { first: number; count: number } {
  const each = region.pageSize / pageSize();
  return { first: (first - region.page) * each, count: count * each };
}

/**
 * Regions under one memslot each, with a bitmap that KVM reads before it maps a page for a vCPU: a set bit
 * causes an exit. Clearing its bits makes a page available, without a memslot operation. Setting a bit has no
 * effect on a page that KVM has already mapped, until the slot's flag is cleared and set. Used by the slot
 * thread only, except that the resolver clears the bits of pages that arrive.
 *
 * Requires: a kernel with KVM Userfault. Source: series "KVM: Introduce KVM Userfault", v3.
 */
export class UserfaultSlots implements GuestMapping {
  readonly #vm: SlotVm;
  readonly #regions: readonly SlotRegion[];
  readonly #first: number;
  readonly #flag: number;
  readonly #bits: readonly SharedBits[];
  changed = 0;

  /** `bitmaps`: an address for each region. */
  constructor(
    vm: SlotVm,
    regions: readonly SlotRegion[],
    firstSlot: number,
    flag: number,
    bitmaps: readonly number[],
  ) {
    this.#vm = vm;
    this.#regions = regions;
    this.#first = firstSlot;
    this.#flag = flag;
    this.#bits = bitmaps.map((address) => SharedBits.borrow(address));
  }

  start(): void {
    for (const [index, region] of this.#regions.entries()) {
      const all = bitsOf(region, { first: region.page, count: region.count });
      this.#bits[index]!.set(all.first, all.count);
      this.#set(index, this.#flag);
    }
  }

  map(pages: PageRange): void {
    const { index, bits } = this.#place(pages);
    this.#bits[index]!.clear(bits.first, bits.count);
  }

  vacate(pages: PageRange): PageRange {
    const { index, bits } = this.#place(pages);
    this.#bits[index]!.set(bits.first, bits.count);
    this.#set(index, 0);
    this.#set(index, this.#flag);
    return pages;
  }

  bindAgain(): void {
    // no slot is bound to a file
  }

  gatherDirty(): void {
    // slots with a bitmap do not log here
  }

  clearMissing(): void {
    // their bits are set
  }

  clear(): void {
    for (const index of this.#regions.keys())
      this.#vm.trySetSlot({ slot: this.#first + index, gpa: 0, length: 0, userspace: 0 });
  }

  #place(pages: PageRange): { index: number; bits: { first: number; count: number } } {
    const region = regionOf(this.#regions, pages.first)!;
    return { index: this.#regions.indexOf(region), bits: bitsOf(region, pages) };
  }

  #set(index: number, flags: number): void {
    const { gpa, count, pageSize: bytes, address } = this.#regions[index]!;
    this.changed++;
    const slot = {
      slot: this.#first + index,
      gpa,
      length: count * bytes,
      userspace: address,
      flags,
      userfaultBitmap: this.#bits[index]!.address,
    };
    const result = this.#vm.trySetSlot(slot);
    if (result === 0) return;
    if (result === -ERRNO.EINVAL && flags !== 0 && !isNumberTaken(this.#vm, slot))
      throw new DemandPagingError('NOT_SUPPORTED', 'KVM refused a memslot with a userfault bitmap', {
        errno: ERRNO.EINVAL,
        hint: 'Give the numbers that the kernel was built with, or choose another strategy',
      });
    throw refusedSlot(this.#vm, slot, -result);
  }
}
