import { type PageRange } from '../api/address.js';
import { DemandPagingError } from '../api/error.js';
import { ERRNO, pageSize, SharedBits } from '../linux/index.js';
import { isNumberTaken, refusedSlot } from './refused-slot.js';
import { regionOf, type SlotRegion } from './slot-region.js';
import { type ShownPages, type SlotVm } from './slot-table.js';

/** The numbers that a kernel with KVM Userfault was built with: they are in no release. */
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

/** Base pages of a run of a region's pages: what a bit of the bitmap stands for. */
export function bitsOf(region: SlotRegion, { first, count }: PageRange): { first: number; count: number } {
  const each = region.pageSize / pageSize();
  return { first: (first - region.page) * each, count: count * each };
}

/**
 * Regions under one slot each, with a bitmap in which KVM looks before it lets a vCPU have a page that it has not
 * mapped for it: a set bit exits. To show a page is to clear its bits, which no slot operation takes part in; a bit set
 * again does nothing to a page that is mapped until the slot's flag was off and on. Used by the slot thread only, but
 * for the bits of pages that come, which the resolver clears.
 *
 * Requires: a kernel with KVM Userfault. Source: series "KVM: Introduce KVM Userfault", v3.
 */
export class UserfaultSlots implements ShownPages {
  readonly #vm: SlotVm;
  readonly #regions: readonly SlotRegion[];
  readonly #first: number;
  readonly #flag: number;
  readonly #bits: readonly SharedBits[];
  changed = 0;

  /** `bitmaps`: an address a region. */
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

  goLive(pages: PageRange): void {
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
      throw new DemandPagingError('NOT_SUPPORTED', "this kernel's KVM takes no userfault bitmap", {
        errno: ERRNO.EINVAL,
        hint: 'Give the numbers that the kernel was built with, or take another strategy',
      });
    throw refusedSlot(this.#vm, slot, -result);
  }
}
