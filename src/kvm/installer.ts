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

/** What came of a run of pages: how many are done, whole and in order, and the errno that stopped it, or 0. */
export interface Installed {
  readonly pages: number;
  readonly errno: number;
}

/**
 * How contents get into the memory behind a slot. `from` is an address. A page is either done whole or not counted.
 * None touches memory through a mapping that may block.
 */
export interface PageInstaller {
  copy(region: SlotRegion, first: PageIndex, count: number, from: number): Installed;
  zero(region: SlotRegion, first: PageIndex, count: number): Installed;
  /** Makes accesses other than a vCPU's fail from now on, where there is a way. */
  poison(region: SlotRegion, first: PageIndex, count: number): Installed;
  /** Lets accessors find pages again that were hidden from them with their contents; wakes nobody. 0 or an errno. */
  unhide(region: SlotRegion, first: PageIndex, count: number): number;
  /** Wakes whoever waits in a page fault. */
  wake(region: SlotRegion, first: PageIndex, count: number): void;
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
 * Writes `length` bytes by the kernel, for which a page that cannot be had is an errno; whoever stores to the mapping is
 * ended by SIGBUS, with the process. How many were written, and what stopped it, or 0: ENOMEM where the memory has no
 * page to give (a full tmpfs, an empty pool of huge pages), EFAULT where `file` ends before `end`.
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

/** Writes pages that lie at `to` now. `fromOf`: where a page's contents are; one write takes `atOnce` of them. */
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

/** Plain memory that only vCPUs are kept from: it is written where it lies. */
export class WrittenInstaller implements PageInstaller {
  readonly #zeros: Zeros;
  readonly #files: ReadonlyMap<number, RegionFile>;
  readonly #zeroFilled: ReadonlySet<number>;

  /**
   * `files`: the memory files of regions that have one, by first page. `zeroFilled`: regions in which what is discarded
   * reads as zeros.
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

  /** The kernel's own zero page costs no memory. False: they must be written (locked memory; before Linux 5.14). */
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

  unhide(): number {
    return 0;
  }

  wake(): void {
    // nobody waits in a page fault
  }
}

/** Memory of a port's own, made of transparent huge pages where it can be, that contents are moved out of. */
export interface Moving {
  /** Where contents are staged. */
  readonly staging: Pick<Mapping, 'address' | 'length'>;
  /** Room for one huge page of contents that lie elsewhere. */
  readonly spare: number;
}

/** A verb has done what {@link UffdPort.done} says, and maybe all of it. */
const MORE = 1;

/**
 * Carries a verb of the userfaultfd out on a run of pages, in `unit`s. What is there already is skipped, and its waiters
 * are woken. The kernel refuses a range as a whole where it leaves a mapping, and whoever treats a part of the memory
 * differently (mprotect, madvise) splits the mapping there: such a range is halved down to the page that it is about.
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
      most *= 2; // the next try says why it stopped
    else if (result === -ERRNO.ENOENT && asked > unit)
      most = Math.max(unit, Math.floor(asked / 2 / unit) * unit);
    else if (result !== -ERRNO.EEXIST) return { pages: Math.floor(done / region.pageSize), errno: -result };
    else {
      uffd.wake(start + done, unit); // the kernel woke nobody
      done += unit;
    }
  }
  return whole(count);
}

/** Base pages that one page of a region is installed in, or its own size for huge pages. */
export interface UffdUnits {
  unitOf(region: SlotRegion): number;
}

/**
 * Memory registered with a userfaultfd: contents appear by UFFDIO_COPY, so that an access of KVM's, the
 * VMM's or another thread's waits until they are there. A run of pages is installed in
 * one call; where that stops half-way it goes on, so that a page is complete or not present.
 *
 * Where it may, it moves them in as transparent huge pages instead (UFFDIO_MOVE): one page table entry for 2 MiB, which
 * takes a third of the time (measured on 6.18), and one of KVM's as well. What lies in staging goes as it is; what lies
 * elsewhere, and has to stay there, is copied into a huge page first.
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
        // A page in its way, one that somebody holds, memory that is shared: copying knows what to do.
        moves = false;
      }
      return this.#uffd.copy(start, from + done, length);
    });
  }

  /** The next huge page of contents, from where it can be moved to `start`; undefined where it cannot. */
  #movable({ staging, spare }: Moving, start: number, from: number, length: number): number | undefined {
    if (start % TRANSPARENT_HUGE_BYTES !== 0 || length < TRANSPARENT_HUGE_BYTES) return undefined;
    const isStaged = from >= staging.address && from + length <= staging.address + staging.length;
    if (isStaged) return from % TRANSPARENT_HUGE_BYTES === 0 ? from : undefined;
    // By the kernel: contents that cannot be read are an errno to it.
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

  unhide(): number {
    return 0;
  }

  wake(region: SlotRegion, first: PageIndex, count: number): void {
    this.#uffd.wake(addressOf(region, first), count * region.pageSize);
  }
}

/**
 * Memory that lives in a guest_memfd: written through a mapping of the whole file that nobody else has, or by write(2)
 * where the file takes it, then mapped over the reservation where accessors wait, who are woken and find it.
 */
export class GuestMemfdInstaller implements PageInstaller {
  readonly #uffd: UffdPort;
  readonly #aliases: ReadonlyMap<number, number>;
  /** Whether a region's file takes write(2), by its first page. */
  readonly #writes = new Map<number, boolean>();

  readonly #zeros: Zeros;
  readonly #budget: MappingBudget;
  readonly #hidden: () => void;

  /**
   * `aliases`: by a region's first page, the address of the whole region in the mapping that is filled through.
   * `hidden`: called when what is complete cannot be mapped, or is not to be.
   */
  constructor(
    uffd: UffdPort,
    aliases: ReadonlyMap<number, number>,
    zeros: Zeros,
    budget: MappingBudget,
    hidden: () => void,
  ) {
    this.#budget = budget;
    this.#hidden = hidden;
    this.#uffd = uffd;
    this.#zeros = zeros;
    this.#aliases = aliases;
  }

  copy(region: SlotRegion, first: PageIndex, count: number, from: number): Installed {
    const length = count * region.pageSize;
    if (this.#written(region, first, length, from)) return this.#show(region, first, count);
    return this.#write(region, { first, count }, count, (done) => from + done * region.pageSize);
  }

  zero(region: SlotRegion, first: PageIndex, count: number): Installed {
    const atOnce = Math.floor(this.#zeros.length / region.pageSize);
    return this.#write(region, { first, count }, atOnce, () => this.#zeros.address);
  }

  /** What was written is shown, also where the rest could not be. */
  #write(region: SlotRegion, pages: PageRange, atOnce: number, fromOf: (done: number) => number): Installed {
    const to = this.#populated(region, pages.first, pages.count * region.pageSize);
    const file = { fd: region.guestMemfd, offset: region.guestMemfdOffset };
    const written = writePages(region, pages, to, file, atOnce, fromOf);
    const shown = written.pages > 0 ? this.#show(region, pages.first, written.pages) : written;
    return shown.errno !== 0 ? shown : written;
  }

  poison(region: SlotRegion, first: PageIndex, count: number): Installed {
    const uffd = this.#uffd;
    return carryOut(uffd, region, first, count, pageSize(), (start, length) => uffd.poison(start, length));
  }

  unhide(region: SlotRegion, first: PageIndex, count: number): number {
    const errno = showFile(region, first, count);
    if (errno === ERRNO.ENOMEM) this.#hidden();
    return errno;
  }

  wake(region: SlotRegion, first: PageIndex, count: number): void {
    this.#uffd.wake(addressOf(region, first), count * region.pageSize);
  }

  /** Writes the pages by write(2): one call, and no page fault. False: they must be written in another way. */
  #written(region: SlotRegion, first: PageIndex, length: number, from: number): boolean {
    const { page, pageSize, guestMemfd, guestMemfdOffset } = region;
    let writes = this.#writes.get(page);
    if (writes === undefined) this.#writes.set(page, (writes = takesWrites(guestMemfd)));
    const offset = guestMemfdOffset + (first - page) * pageSize;
    return writes && raw.pwrite(guestMemfd, from, length, offset) === length;
  }

  /**
   * Where the pages are written. The file gives a page at a time, so that writing them would take a page fault for
   * each: asked for together they cost one call.
   */
  #populated(region: SlotRegion, first: PageIndex, length: number): number {
    const alias = this.#aliases.get(region.page)! + (first - region.page) * region.pageSize;
    // Where the kernel is too old for it (5.14), or has no page to give, the write itself finds out.
    raw.madvise(alias, length, MADV.POPULATE_WRITE);
    return alias;
  }

  /** What cannot be mapped any more stays hidden, and complete: whoever waits for it is woken, asks again, and is shown it. */
  #show(region: SlotRegion, first: PageIndex, count: number): Installed {
    const errno = this.#budget.take() ? showFile(region, first, count) : ERRNO.ENOMEM;
    if (errno !== 0 && errno !== ERRNO.ENOMEM) return stopped(errno);
    if (errno !== 0) this.#hidden();
    this.#uffd.wake(addressOf(region, first), count * region.pageSize);
    return whole(count);
  }
}

/**
 * Maps pages of a guest_memfd where accessors look for them; 0 or an errno. Runs that meet become one mapping of the
 * kernel's, because they meet in the file too. ENOMEM: there are vm.max_map_count of them.
 */
export function showFile(region: SlotRegion, first: PageIndex, count: number): number {
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
