import { type PageIndex } from '../api/address.js';
import { copyMemory, ERRNO, fillMemory, MADV, MAP, PROT, raw, type UffdPort } from '../linux/index.js';
import { type SlotRegion } from './slot-region.js';

/**
 * How contents get into the memory behind a slot. `from` is an address. All return 0 or a positive errno; a
 * page is either done whole or not counted. None touches memory through a mapping that may block.
 */
export interface PageInstaller {
  copy(region: SlotRegion, page: PageIndex, from: number): number;
  zero(region: SlotRegion, page: PageIndex): number;
  /** Makes accesses other than a vCPU's fail from now on, where there is a way. */
  poison(region: SlotRegion, page: PageIndex): number;
  /** Wakes whoever waits in a page fault. */
  wake(region: SlotRegion, first: PageIndex, count: number): void;
}

const addressOf = (region: SlotRegion, page: PageIndex): number =>
  region.address + (page - region.page) * region.pageSize;

/** Plain memory that only vCPUs are kept from: it is written where it lies. */
export const plainInstaller: PageInstaller = {
  copy(region, page, from) {
    copyMemory(addressOf(region, page), from, region.pageSize);
    return 0;
  },
  zero(region, page) {
    fillMemory(addressOf(region, page), 0, region.pageSize);
    return 0;
  },
  poison: () => 0,
  wake: () => {},
};

/** Base pages that one page of a region is installed in, or its own size for huge pages. */
export interface UffdUnits {
  unitOf(region: SlotRegion): number;
}

/**
 * Memory registered with a userfaultfd: contents appear by UFFDIO_COPY, so that an access of KVM's, the
 * VMM's or another thread's waits until they are there. A page of several base pages is installed in
 * one call; where that stops half-way it goes on, so that the page is complete or not present.
 */
export class UffdInstaller implements PageInstaller {
  readonly #uffd: UffdPort;
  readonly #units: UffdUnits;

  constructor(uffd: UffdPort, units: UffdUnits) {
    this.#uffd = uffd;
    this.#units = units;
  }

  copy(region: SlotRegion, page: PageIndex, from: number): number {
    return this.#whole(region, page, (start, length, done) => this.#uffd.copy(start, from + done, length));
  }

  zero(region: SlotRegion, page: PageIndex): number {
    return this.#whole(region, page, (start, length) => this.#uffd.zeropage(start, length));
  }

  poison(region: SlotRegion, page: PageIndex): number {
    return this.#whole(region, page, (start, length) => this.#uffd.poison(start, length));
  }

  wake(region: SlotRegion, first: PageIndex, count: number): void {
    this.#uffd.wake(addressOf(region, first), count * region.pageSize);
  }

  #whole(
    region: SlotRegion,
    page: PageIndex,
    verb: (start: number, length: number, done: number) => number,
  ): number {
    const unit = this.#units.unitOf(region);
    const start = addressOf(region, page);
    for (let done = 0; done < region.pageSize;) {
      const result = verb(start + done, region.pageSize - done, done);
      if (result === 0) return 0;
      const progress = this.#uffd.done;
      done += progress;
      if (progress > 0) continue; // the next try says why it stopped
      if (result !== -ERRNO.EEXIST) return -result;
      this.#uffd.wake(start + done, unit); // the kernel woke nobody
      done += unit;
    }
    return 0;
  }
}

/**
 * Memory that lives in a guest_memfd: written through a mapping of the whole file that nobody else has, then
 * mapped over the reservation where accessors wait, who are woken and find it.
 */
export class GuestMemfdInstaller implements PageInstaller {
  readonly #uffd: UffdPort;
  readonly #aliases: ReadonlyMap<number, number>;

  /** `aliases`: by a region's first page, the address of the whole region in the mapping that is filled through. */
  constructor(uffd: UffdPort, aliases: ReadonlyMap<number, number>) {
    this.#uffd = uffd;
    this.#aliases = aliases;
  }

  copy(region: SlotRegion, page: PageIndex, from: number): number {
    copyMemory(this.#alias(region, page), from, region.pageSize);
    return this.#show(region, page);
  }

  zero(region: SlotRegion, page: PageIndex): number {
    fillMemory(this.#alias(region, page), 0, region.pageSize);
    return this.#show(region, page);
  }

  poison(region: SlotRegion, page: PageIndex): number {
    const result = this.#uffd.poison(addressOf(region, page), region.pageSize);
    return result < 0 && result !== -ERRNO.EEXIST ? -result : 0;
  }

  wake(region: SlotRegion, first: PageIndex, count: number): void {
    this.#uffd.wake(addressOf(region, first), count * region.pageSize);
  }

  #alias(region: SlotRegion, page: PageIndex): number {
    return this.#aliases.get(region.page)! + (page - region.page) * region.pageSize;
  }

  #show(region: SlotRegion, page: PageIndex): number {
    const { pageSize, guestMemfd, guestMemfdOffset } = region;
    const address = addressOf(region, page);
    const offset = guestMemfdOffset + (page - region.page) * pageSize;
    // A chunk is a mapping of its own until its neighbours come: ENOMEM says that vm.max_map_count is reached.
    const mapped = raw.mmap(
      address,
      pageSize,
      PROT.READ | PROT.WRITE,
      MAP.SHARED | MAP.FIXED,
      guestMemfd,
      offset,
    );
    if (mapped < 0) return -mapped;
    raw.madvise(address, pageSize, MADV.DONTFORK);
    this.#uffd.wake(address, pageSize);
    return 0;
  }
}
