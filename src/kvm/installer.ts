import { type PageIndex, type PageRange } from '../api/address.js';
import {
  fileEndsBefore,
  ERRNO,
  MADV,
  MAP,
  PROT,
  type Mapping,
  pageSize,
  raw,
  readMemory,
  takesWrites,
  TRANSPARENT_HUGE_BYTES,
  type UffdPort,
  writeMemory,
} from '../linux/index.js';
import { type MappingBudget } from './mapping-limit.js';
import { type SlotRegion } from './slot-region.js';

/**
 * The result for a run of pages: how many are installed, whole and in order, and the errno that stopped it,
 * or 0.
 */
export interface Installed {
  readonly pages: number;
  readonly errno: number;
}

/**
 * Installs contents in the memory behind memslots. `from` is an address. A page is either installed whole or
 * not counted. No implementation accesses memory through a mapping that may block.
 */
export interface PageInstaller {
  copy(region: SlotRegion, first: PageIndex, count: number, from: number): Installed;
  zero(region: SlotRegion, first: PageIndex, count: number): Installed;
  /** Makes accesses other than a vCPU's fail from now on, where the kernel has a way. */
  poison(region: SlotRegion, first: PageIndex, count: number): Installed;
  /**
   * Maps pages for the VMM's threads that were unmapped with their contents; wakes no waiter. Returns 0 or an
   * errno.
   */
  remap(region: SlotRegion, first: PageIndex, count: number): number;
  /** Wakes the threads that wait in a page fault; 0 or `-errno`. */
  wake(region: SlotRegion, first: PageIndex, count: number): number;
}

const addressOf = (region: SlotRegion, page: PageIndex): number =>
  region.address + (page - region.page) * region.pageSize;

const whole = (pages: number): Installed => ({ pages, errno: 0 });
const stopped = (errno: number): Installed => ({ pages: 0, errno });

/** Zero bytes, at least as many as the largest page has. */
export type Zeros = Pick<Mapping, 'address' | 'length'>;
/** A memory file, and where in it a region begins. */
export interface RegionFile {
  readonly fd: number;
  readonly offset: number;
}

/**
 * Writes `length` bytes by a system call, for which an unavailable page is an errno; a store to the mapping
 * would end the process by SIGBUS. Returns how many bytes were written and the errno that stopped it, or 0:
 * ENOMEM if the memory has no page left (a full tmpfs, an empty huge page pool), EFAULT if `file` ends before
 * `end`.
 */
function write(
  to: number,
  from: number,
  length: number,
  file: RegionFile | undefined,
  end: number,
): { readonly written: number; readonly errno: number } {
  for (let written = 0; written < length;) {
    const result = writeMemory(to + written, from + written, length - written);
    if (result > 0) written += result;
    else if (result !== -ERRNO.EFAULT) return { written, errno: -result || ERRNO.EIO };
    else return { written, errno: file && fileEndsBefore(file.fd, end) ? ERRNO.EFAULT : ERRNO.ENOMEM };
  }
  return { written: length, errno: 0 };
}

/**
 * Writes pages at `to`. `fromOf`: the address of a page's contents, by index; `atOnce`: pages in one write.
 */
function writePages(
  { pageSize, page }: SlotRegion,
  { first, count }: PageRange,
  to: number,
  file: RegionFile | undefined,
  atOnce: number,
  fromOf: (done: number) => number,
): Installed {
  for (let done = 0; done < count;) {
    const pages = Math.min(atOnce, count - done);
    const end = file ? file.offset + (first + done + pages - page) * pageSize : 0;
    const { written, errno } = write(to + done * pageSize, fromOf(done), pages * pageSize, file, end);
    done += Math.floor(written / pageSize);
    if (errno !== 0) return { pages: done, errno };
  }
  return whole(count);
}

/** Plain memory whose missing pages stop only vCPUs: it is written in place. */
export class WrittenInstaller implements PageInstaller {
  readonly #zeros: Zeros;
  readonly #files: ReadonlyMap<number, RegionFile>;
  readonly #zeroFilled: ReadonlySet<number>;

  /**
   * `files`: the memory files of regions that have one, by first page. `zeroFilled`: regions whose discarded
   * pages read as zeros.
   */
  constructor(zeros: Zeros, files: ReadonlyMap<number, RegionFile>, zeroFilled: ReadonlySet<number>) {
    this.#zeros = zeros;
    this.#files = files;
    this.#zeroFilled = zeroFilled;
  }

  copy(region: SlotRegion, first: PageIndex, count: number, from: number): Installed {
    return this.#write(region, { first, count }, count, (done) => from + done * region.pageSize);
  }

  zero(region: SlotRegion, first: PageIndex, count: number): Installed {
    if (this.#zeroFilled.has(region.page) && this.#mapZeros(region, first, count)) return whole(count);
    const atOnce = Math.floor(this.#zeros.length / region.pageSize);
    return this.#write(region, { first, count }, atOnce, () => this.#zeros.address);
  }

  /**
   * Maps the kernel's zero page, which costs no memory. False: zeros must be written (locked memory; before
   * Linux 5.14).
   */
  #mapZeros(region: SlotRegion, first: PageIndex, count: number): boolean {
    const address = addressOf(region, first);
    const length = count * region.pageSize;
    return (
      raw.madvise(address, length, MADV.DONTNEED) === 0 &&
      raw.madvise(address, length, MADV.POPULATE_READ) === 0
    );
  }

  #write(region: SlotRegion, pages: PageRange, atOnce: number, fromOf: (done: number) => number): Installed {
    const file = this.#files.get(region.page);
    return writePages(region, pages, addressOf(region, pages.first), file, atOnce, fromOf);
  }

  poison(_region: SlotRegion, _first: PageIndex, count: number): Installed {
    return whole(count);
  }

  remap(): number {
    return 0;
  }

  wake(): number {
    return 0; // no thread waits in a page fault
  }
}

/** Memory of the port, of transparent huge pages where possible, that contents are moved out of. */
export interface Moving {
  /** Where contents are staged. */
  readonly staging: Pick<Mapping, 'address' | 'length'>;
  /** Room for one huge page of contents that lie elsewhere. */
  readonly spare: number;
}

/** Result of a verb that has done as much as {@link UffdPort.done} says, maybe all. */
const MORE = 1;

/**
 * Carries out a userfaultfd verb on a run of pages, in `unit`s. Present units are skipped, and their waiters
 * are woken. The kernel refuses a range as a whole if it crosses a mapping's end, and mprotect(2) or
 * madvise(2) on a part of the memory splits the mapping there: such a range is halved, down to one unit.
 */
function carryOut(
  uffd: UffdPort,
  region: SlotRegion,
  first: PageIndex,
  count: number,
  unit: number,
  verb: (start: number, length: number, done: number) => number,
): Installed {
  const start = addressOf(region, first);
  const length = count * region.pageSize;
  let most = length;
  for (let done = 0; done < length;) {
    const asked = Math.min(most, length - done);
    const result = verb(start + done, asked, done);
    const progress = result === 0 ? asked : uffd.done;
    done += progress;
    if (progress > 0)
      most *= 2; // the next call reports why it stopped
    else if (result === -ERRNO.ENOENT && asked > unit)
      most = Math.max(unit, Math.floor(asked / 2 / unit) * unit);
    else if (result !== -ERRNO.EEXIST) return { pages: Math.floor(done / region.pageSize), errno: -result };
    else {
      const woken = uffd.wake(start + done, unit); // the kernel woke no waiter
      if (woken < 0) return { pages: Math.floor(done / region.pageSize), errno: -woken };
      done += unit;
    }
  }
  return whole(count);
}

/** The unit in bytes in which a region is installed: the base page size, or the huge page size. */
export interface UffdUnits {
  unitOf(region: SlotRegion): number;
}

/**
 * Memory registered with a userfaultfd: UFFDIO_COPY installs contents atomically, so that an access of KVM,
 * the VMM or another thread waits until they are there. A run of pages is installed in one call, which is
 * continued if the kernel stops half-way, so that a page is either complete or not present.
 *
 * Where possible contents are moved in as transparent huge pages instead (UFFDIO_MOVE): one page table entry
 * for 2 MiB, which takes a third of the time (measured on 6.18), and one of KVM's as well. Contents in
 * staging are moved as they are; contents elsewhere, which have to stay there, are first copied into a huge
 * page.
 */
export class UffdInstaller implements PageInstaller {
  readonly #uffd: UffdPort;
  readonly #units: UffdUnits;
  readonly #moving: Moving | undefined;

  /** `moving`: absent where contents must be copied. */
  constructor(uffd: UffdPort, units: UffdUnits, moving?: Moving) {
    this.#uffd = uffd;
    this.#units = units;
    this.#moving = moving;
  }

  copy(region: SlotRegion, first: PageIndex, count: number, from: number): Installed {
    let moves = this.#moving !== undefined && this.#units.unitOf(region) < TRANSPARENT_HUGE_BYTES;
    return carryOut(this.#uffd, region, first, count, this.#units.unitOf(region), (start, length, done) => {
      const source = moves ? this.#movable(this.#moving!, start, from + done, length) : undefined;
      if (source !== undefined) {
        this.#uffd.move(start, source, TRANSPARENT_HUGE_BYTES);
        if (this.#uffd.done > 0) return MORE;
        // A present page, a pinned page or shared memory: UFFDIO_COPY handles or reports it.
        moves = false;
      }
      return this.#uffd.copy(start, from + done, length);
    });
  }

  /**
   * The address from which the next huge page of contents can be moved to `start`; undefined if it cannot be
   * moved.
   */
  #movable({ staging, spare }: Moving, start: number, from: number, length: number): number | undefined {
    if (start % TRANSPARENT_HUGE_BYTES !== 0 || length < TRANSPARENT_HUGE_BYTES) return undefined;
    const isStaged = from >= staging.address && from + length <= staging.address + staging.length;
    if (isStaged) return from % TRANSPARENT_HUGE_BYTES === 0 ? from : undefined;
    // By a system call: contents that cannot be read are an errno.
    return readMemory(spare, from, TRANSPARENT_HUGE_BYTES) === TRANSPARENT_HUGE_BYTES ? spare : undefined;
  }

  zero(region: SlotRegion, first: PageIndex, count: number): Installed {
    const uffd = this.#uffd;
    const unit = this.#units.unitOf(region);
    return carryOut(uffd, region, first, count, unit, (start, length) => uffd.zeropage(start, length));
  }

  poison(region: SlotRegion, first: PageIndex, count: number): Installed {
    const uffd = this.#uffd;
    const unit = this.#units.unitOf(region);
    return carryOut(uffd, region, first, count, unit, (start, length) => uffd.poison(start, length));
  }

  remap(): number {
    return 0;
  }

  wake(region: SlotRegion, first: PageIndex, count: number): number {
    return this.#uffd.wake(addressOf(region, first), count * region.pageSize);
  }
}

/**
 * Memory in a guest_memfd: written through an alias mapping of the whole file, which no other thread uses, or
 * by write(2) if the file supports it, then mapped over the reservation in which accessors wait; they are
 * woken and find the page.
 */
export class GuestMemfdInstaller implements PageInstaller {
  readonly #uffd: UffdPort;
  readonly #aliases: ReadonlyMap<number, number>;
  /** Whether a region's file supports write(2), by first page. */
  readonly #writes = new Map<number, boolean>();

  readonly #zeros: Zeros;
  readonly #budget: MappingBudget;
  readonly #unmapped: () => void;

  /**
   * `aliases`: the address of each region in the alias mapping, by first page. `unmapped`: called when a
   * complete page cannot be mapped, or is not mapped to save mappings.
   */
  constructor(
    uffd: UffdPort,
    aliases: ReadonlyMap<number, number>,
    zeros: Zeros,
    budget: MappingBudget,
    unmapped: () => void,
  ) {
    this.#budget = budget;
    this.#unmapped = unmapped;
    this.#uffd = uffd;
    this.#zeros = zeros;
    this.#aliases = aliases;
  }

  copy(region: SlotRegion, first: PageIndex, count: number, from: number): Installed {
    const length = count * region.pageSize;
    if (this.#written(region, first, length, from)) return this.#map(region, first, count);
    return this.#write(region, { first, count }, count, (done) => from + done * region.pageSize);
  }

  zero(region: SlotRegion, first: PageIndex, count: number): Installed {
    const atOnce = Math.floor(this.#zeros.length / region.pageSize);
    return this.#write(region, { first, count }, atOnce, () => this.#zeros.address);
  }

  /** Maps the pages that were written, also if the rest could not be. */
  #write(region: SlotRegion, pages: PageRange, atOnce: number, fromOf: (done: number) => number): Installed {
    const to = this.#populated(region, pages.first, pages.count * region.pageSize);
    const file = { fd: region.guestMemfd, offset: region.guestMemfdOffset };
    const written = writePages(region, pages, to, file, atOnce, fromOf);
    const mapped = written.pages > 0 ? this.#map(region, pages.first, written.pages) : written;
    return mapped.errno !== 0 ? mapped : written;
  }

  poison(region: SlotRegion, first: PageIndex, count: number): Installed {
    const uffd = this.#uffd;
    return carryOut(uffd, region, first, count, pageSize(), (start, length) => uffd.poison(start, length));
  }

  remap(region: SlotRegion, first: PageIndex, count: number): number {
    const errno = mapFile(region, first, count);
    if (errno === ERRNO.ENOMEM) this.#unmapped();
    return errno;
  }

  wake(region: SlotRegion, first: PageIndex, count: number): number {
    return this.#uffd.wake(addressOf(region, first), count * region.pageSize);
  }

  /**
   * Writes the pages by write(2): one call and no page fault. False: they must be written through the alias.
   */
  #written(region: SlotRegion, first: PageIndex, length: number, from: number): boolean {
    const { page, pageSize, guestMemfd, guestMemfdOffset } = region;
    let writes = this.#writes.get(page);
    if (writes === undefined) this.#writes.set(page, (writes = takesWrites(guestMemfd)));
    const offset = guestMemfdOffset + (first - page) * pageSize;
    return writes && raw.pwrite(guestMemfd, from, length, offset) === length;
  }

  /**
   * The alias address of the pages, populated by one call: guest_memfd allocates page by page, so writing
   * would take a page fault for each.
   */
  #populated(region: SlotRegion, first: PageIndex, length: number): number {
    const alias = this.#aliases.get(region.page)! + (first - region.page) * region.pageSize;
    // On a kernel before 5.14, or without free memory, this fails, and the write itself faults or reports it.
    raw.madvise(alias, length, MADV.POPULATE_WRITE);
    return alias;
  }

  /**
   * Pages that cannot be mapped stay complete but unmapped: their waiters are woken, fault again, and get
   * them mapped.
   */
  #map(region: SlotRegion, first: PageIndex, count: number): Installed {
    const errno = this.#budget.take() ? mapFile(region, first, count) : ERRNO.ENOMEM;
    if (errno !== 0 && errno !== ERRNO.ENOMEM) return stopped(errno);
    if (errno !== 0) this.#unmapped();
    const woken = this.#uffd.wake(addressOf(region, first), count * region.pageSize);
    return woken < 0 ? stopped(-woken) : whole(count);
  }
}

/**
 * Maps pages of a guest_memfd over the reservation; returns 0 or an errno. The kernel merges adjacent runs
 * into one mapping, because they are adjacent in the file, too. ENOMEM: the process has vm.max_map_count
 * mappings.
 */
export function mapFile(region: SlotRegion, first: PageIndex, count: number): number {
  const { pageSize: bytes, guestMemfd, guestMemfdOffset } = region;
  const address = addressOf(region, first);
  const length = count * bytes;
  const offset = guestMemfdOffset + (first - region.page) * bytes;
  const flags = MAP.SHARED | MAP.FIXED;
  const mapped = raw.mmap(address, length, PROT.READ | PROT.WRITE, flags, guestMemfd, offset);
  if (mapped < 0) return -mapped;
  raw.madvise(address, length, MADV.DONTFORK);
  return 0;
}
