import {
  type FileOffset,
  type Gpa,
  type GpaRange,
  type Hva,
  type PageIndex,
  type PageRange,
  fileOffset,
  gpa,
  hex,
  hva,
} from './address.js';
import { DemandPagingError } from './error.js';

/** What backs a region. `guest-memfd` lives in a KVM guest_memfd file; `shmem` in a memfd or tmpfs file. */
export type MemoryKind = 'anonymous' | 'shmem' | 'hugetlb' | 'guest-memfd';

/**
 * What is done about pages that are in memory before the pager installed any.
 *
 * - `refuse`: the pager does not open (NOT_EMPTY).
 * - `discard`: they are discarded, and fetched from the source.
 * - `keep`: they count as present, with what they hold.
 */
export type ContentsChoice = 'refuse' | 'discard' | 'keep';

const CHOICES: readonly unknown[] = ['refuse', 'discard', 'keep', undefined] satisfies (
  ContentsChoice | undefined
)[];

/** The pages of regions, a range for each. */
export const pagesOf = (regions: readonly Region[]): readonly PageRange[] =>
  regions.map(({ firstPage, pageCount }) => ({ first: firstPage, count: pageCount }));

/** Whether its pages lie in a page cache, so that what a mapping knows of a place outlives the page. */
export const hasPageCache = (memory: MemoryKind): boolean => memory === 'shmem' || memory === 'hugetlb';

/** One region as a VMM states it. Cloneable: it crosses isolates as it is. */
export interface RegionSpec {
  /** Guest-physical start; aligned to `pageSize`. */
  readonly gpa: Gpa;
  /** Length in bytes; a multiple of `pageSize`, not zero. */
  readonly length: bigint;
  /** Where the region's first byte lies in the source. */
  readonly sourceOffset: FileOffset;
  readonly memory: MemoryKind;
  /** The unit in which pages go missing and come, in bytes: a power of two from 4096. */
  readonly pageSize: number;
  /** Where the region is mapped in the address space it belongs to; absent until a backend mapped it. */
  readonly hva?: Hva | undefined;
  /**
   * The memory file and the region's offset in it, where there is one (`shmem`, `hugetlb`): what is mapped at
   * `hva`, if that is given, too. No two regions share a part of a file: what is installed for one would
   * appear in the other.
   */
  readonly file?: { readonly fd: number; readonly offset: FileOffset } | undefined;
  /**
   * What becomes of pages that the memory has when the pager opens, beyond those that its `states` say are
   * present: an access would find them without a fault, and read what they hold. See {@link ContentsChoice}.
   * Default `refuse`; what the pager maps itself, of no given file, is always empty.
   */
  readonly contents?: ContentsChoice | undefined;
}

/** A region with its place among the pages of its layout. */
export interface Region extends RegionSpec {
  readonly firstPage: PageIndex;
  readonly pageCount: number;
  /** `sourceOffset` as a number. */
  readonly sourceByte: number;
}

/** The most pages one layout may have: what a 32-bit word can number. */
export const MAX_LAYOUT_PAGES = 2 ** 32 - 2;

/** A layout as it crosses isolates, with the numbers of its pages. */
export interface LayoutShape {
  /** By first page; removed regions included. */
  readonly numbered: readonly Region[];
  /** First pages of the regions that were removed. */
  readonly removed: readonly PageIndex[];
}

/** Pages that are elsewhere than their region was; `hva` undefined: nowhere. */
interface Moved extends PageRange {
  readonly hva: Hva | undefined;
}

/**
 * The guest memory of one pager: non-overlapping regions in ascending guest-physical order, their pages
 * numbered through from 0. Regions that a pager adds are numbered after all others, and the numbers of one
 * that it removes are not used again. A region's addresses are those of its opening; {@link hvaOf} follows
 * where memory is moved and unmapped.
 *
 * Errors: BAD_ALIGNMENT and BAD_RANGE for what {@link RegionSpec} rules out, naming the region; RangeError
 * for an unknown choice of `contents`.
 */
export class MemoryLayout {
  #regions: readonly Region[] = [];
  /** By first page; those that were removed, too: a page that was asked for before is still known. */
  #numbered: readonly Region[] = [];
  #removed: ReadonlySet<PageIndex> = new Set();
  #moved: readonly Moved[] = [];

  constructor(specs: readonly RegionSpec[] | LayoutShape) {
    if ('numbered' in specs) {
      this.#numbered = specs.numbered;
      this.#removed = new Set(specs.removed);
      this.#sortRegions();
    } else this.add(this.plan(specs));
  }

  /** The regions, by guest-physical address. */
  get regions(): readonly Region[] {
    return this.#regions;
  }

  /** Pages that are numbered, those of removed regions included: the first number that is free. */
  get pageCount(): number {
    const last = this.#numbered.at(-1);
    return last ? last.firstPage + last.pageCount : 0;
  }

  /** What crosses to another isolate, whose `new MemoryLayout(…)` then numbers pages alike. */
  get shape(): LayoutShape {
    return { numbered: this.#numbered, removed: [...this.#removed] };
  }

  /**
   * Regions for {@link add}, their pages numbered after all others, from a multiple of `alignment`. The
   * layout is unchanged. Errors: as the constructor; BAD_RANGE where they overlap a region of the layout.
   */
  plan(specs: readonly RegionSpec[], alignment = 1): readonly Region[] {
    if (specs.length === 0)
      throw new DemandPagingError('BAD_RANGE', 'a memory layout needs at least one region');
    const sorted = [...specs].sort((a, b) => compare(a.gpa, b.gpa));
    let firstPage = Math.ceil(this.pageCount / alignment) * alignment;
    const regions = sorted.map((spec) => {
      checkRegion(spec);
      const pageCount = Number(spec.length / BigInt(spec.pageSize));
      const region: Region = { ...spec, firstPage, pageCount, sourceByte: Number(spec.sourceOffset) };
      firstPage += pageCount;
      return region;
    });
    if (firstPage > MAX_LAYOUT_PAGES) {
      throw new DemandPagingError(
        'BAD_RANGE',
        `the layout has ${firstPage} pages; at most ${MAX_LAYOUT_PAGES} can be numbered`,
      );
    }
    refuseOverlap([...this.#places(), ...regions]);
    return regions;
  }

  /**
   * @internal Adds planned regions. Those that the layout has already are passed over: isolates may share a
   * layout.
   */
  add(regions: readonly Region[]): void {
    const fresh = regions.filter(({ firstPage }) => firstPage >= this.pageCount);
    this.#numbered = [...this.#numbered, ...fresh];
    this.#sortRegions();
  }

  /** @internal Their addresses are no memory any more. Their pages keep their numbers. */
  remove(regions: readonly Pick<Region, 'firstPage'>[]): void {
    this.#removed = new Set([...this.#removed, ...regions.map(({ firstPage }) => firstPage)]);
    this.#sortRegions();
  }

  /** Whether a page's region was removed. */
  isRemoved(page: PageIndex): boolean {
    return this.#removed.size > 0 && this.#removed.has(this.regionOf(page).firstPage);
  }

  /**
   * The regions that ranges consist of. Errors: BAD_RANGE where a range begins or ends inside of one, or
   * outside all.
   */
  regionsOf(ranges: readonly GpaRange[]): readonly Region[] {
    const regions = ranges.flatMap((range) => this.pagesOf(range).map(({ first }) => this.regionOf(first)));
    const bytes = regions.reduce((sum, { length }) => sum + length, 0n);
    const whole = ranges.every(({ start }) => this.regionAt(start)?.gpa === start);
    const distinct = new Set(regions).size === regions.length;
    if (whole && distinct && bytes === ranges.reduce((sum, { length }) => sum + length, 0n)) return regions;
    throw new DemandPagingError('BAD_RANGE', 'the ranges are not whole regions, each named once', {
      hint: `Regions: ${this.describe()}`,
    });
  }

  #sortRegions(): void {
    this.#regions = this.#numbered
      .filter(({ firstPage }) => !this.#removed.has(firstPage))
      .sort((a, b) => compare(a.gpa, b.gpa));
  }

  /** Where regions are by now, as far as they were not moved in parts. */
  #places(): readonly RegionSpec[] {
    return this.#regions.map((region) => {
      const moved = this.#moved.find(({ first }) => first === region.firstPage);
      const parts = this.#moved.some(
        ({ first, count }) => first < region.firstPage + region.pageCount && region.firstPage < first + count,
      );
      if (!parts) return region;
      return { ...region, hva: moved?.count === region.pageCount ? moved.hva : undefined };
    });
  }

  /** The region that holds a page, or held it until it was removed. Throws RangeError for any other page. */
  regionOf(page: PageIndex): Region {
    let low = 0;
    let high = this.#numbered.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.#numbered[middle]!.firstPage <= page) low = middle;
      else high = middle - 1;
    }
    const region = this.#numbered[low];
    if (!(region && page >= region.firstPage && page < region.firstPage + region.pageCount)) {
      throw new RangeError(`page ${page} is outside the layout's ${this.pageCount} pages`);
    }
    return region;
  }

  /** The region that holds a guest-physical address, or undefined for a hole. */
  regionAt(address: Gpa): Region | undefined {
    let low = 0;
    let high = this.#regions.length - 1;
    while (low < high) {
      const middle = (low + high + 1) >>> 1;
      if (this.#regions[middle]!.gpa <= address) low = middle;
      else high = middle - 1;
    }
    const region = this.#regions[low];
    return region && address >= region.gpa && address < region.gpa + region.length ? region : undefined;
  }

  /** The page that holds a guest-physical address, or undefined for a hole. */
  pageAt(address: Gpa): PageIndex | undefined {
    const region = this.regionAt(address);
    return region && region.firstPage + Number((address - region.gpa) / BigInt(region.pageSize));
  }

  gpaOf(page: PageIndex): Gpa {
    const region = this.regionOf(page);
    return gpa(region.gpa + BigInt(page - region.firstPage) * BigInt(region.pageSize));
  }

  /**
   * Where a page is mapped now, in the address space the layout belongs to. Throws RangeError where its
   * region has no address, MEMORY_GONE where it was unmapped.
   */
  hvaOf(page: PageIndex): Hva {
    const region = this.regionOf(page);
    const moved = this.#moved.find(({ first, count }) => page >= first && page < first + count);
    if (moved?.hva !== undefined)
      return hva(moved.hva + BigInt(page - moved.first) * BigInt(region.pageSize));
    if (moved) throw new DemandPagingError('MEMORY_GONE', `page ${page} is not mapped any more`);
    if (region.hva === undefined) throw new RangeError(`the region at ${hex(region.gpa)} is not mapped`);
    return hva(region.hva + BigInt(page - region.firstPage) * BigInt(region.pageSize));
  }

  /** @internal These pages of one region are at another address now; undefined: they are no longer mapped. */
  move(pages: PageRange, to: Hva | undefined): void {
    const { pageSize } = this.regionOf(pages.first);
    const end = pages.first + pages.count;
    const others = this.#moved.flatMap((old): Moved[] => {
      const before = Math.min(old.count, Math.max(0, pages.first - old.first));
      const skipped = Math.min(old.count, Math.max(0, end - old.first));
      const at = old.hva === undefined ? undefined : hva(old.hva + BigInt(skipped * pageSize));
      const after = { first: old.first + skipped, count: old.count - skipped, hva: at };
      return [{ ...old, count: before }, after].filter(({ count }) => count > 0);
    });
    this.#moved = [...others, { ...pages, hva: to }];
  }

  sourceOffsetOf(page: PageIndex): FileOffset {
    const region = this.regionOf(page);
    return fileOffset(region.sourceOffset + BigInt(page - region.firstPage) * BigInt(region.pageSize));
  }

  /**
   * As {@link sourceOffsetOf}, as a number, which every offset of a source is: for every fault, without a
   * bigint.
   */
  sourceByteOf(page: PageIndex): number {
    const region = this.regionOf(page);
    return region.sourceByte + (page - region.firstPage) * region.pageSize;
  }

  /**
   * The pages that a guest-physical range touches, one {@link PageRange} a region. The range need not
   * be aligned. Throws BAD_RANGE for a zero length and for a byte outside every region.
   */
  pagesOf(range: GpaRange): readonly PageRange[] {
    if (range.length <= 0n)
      throw new DemandPagingError('BAD_RANGE', `a range of ${range.length} bytes at ${hex(range.start)}`, {
        range,
      });
    const ranges: PageRange[] = [];
    let at = range.start as bigint;
    const end = range.start + range.length;
    while (at < end) {
      const region = this.regionAt(at as Gpa);
      if (!region) {
        throw new DemandPagingError('BAD_RANGE', `${hex(at)} is outside every region`, {
          range,
          hint: `Regions: ${this.describe()}`,
        });
      }
      const stop = end < region.gpa + region.length ? end : region.gpa + region.length;
      const size = BigInt(region.pageSize);
      const first = region.firstPage + Number((at - region.gpa) / size);
      const last = region.firstPage + Number((stop - 1n - region.gpa) / size);
      ranges.push({ first, count: last - first + 1 });
      at = stop;
    }
    return ranges;
  }

  /** The pages of a range that lie inside regions; what does not is left out. */
  pagesInside(range: GpaRange): readonly PageRange[] {
    const end = range.start + range.length;
    return this.regions.flatMap((region) => {
      const from = range.start > region.gpa ? range.start : region.gpa;
      const to = end < region.gpa + region.length ? end : region.gpa + region.length;
      return to > from ? this.pagesOf({ start: gpa(from), length: to - from }) : [];
    });
  }

  /** As {@link pagesOf}, but refuses a range that is not whole pages (BAD_ALIGNMENT). */
  wholePagesOf(range: GpaRange): readonly PageRange[] {
    const pages = this.pagesOf(range);
    for (const edge of [range.start as bigint, range.start + range.length]) {
      const region = this.regionAt(edge as Gpa) ?? this.regionAt((edge - 1n) as Gpa);
      if (region && (edge - region.gpa) % BigInt(region.pageSize) !== 0n) {
        throw new DemandPagingError(
          'BAD_ALIGNMENT',
          `${hex(edge)} is not aligned to the region's ${region.pageSize}-byte pages`,
          { range },
        );
      }
    }
    return pages;
  }

  /** The guest-physical range of pages inside one region. */
  gpaRangeOf(range: PageRange): GpaRange {
    const region = this.regionOf(range.first);
    return { start: this.gpaOf(range.first), length: BigInt(range.count) * BigInt(region.pageSize) };
  }

  /** The layout with each region's mapping filled in, in region order. */
  mappedAt(places: readonly Pick<RegionSpec, 'hva' | 'file'>[]): MemoryLayout {
    return new MemoryLayout(this.regions.map((region, i) => ({ ...specOf(region), ...places[i] })));
  }

  /** The specs this layout was made of, sorted: what crosses to another isolate. */
  toSpecs(): RegionSpec[] {
    return this.regions.map(specOf);
  }

  /** The regions in one line, for messages. */
  describe(): string {
    return this.regions.map((region) => `${hex(region.gpa)}+${hex(region.length)}`).join(', ');
  }
}

function specOf(region: Region): RegionSpec {
  const { firstPage: _first, pageCount: _count, sourceByte: _byte, ...spec } = region;
  return spec;
}

function checkRegion(spec: RegionSpec): void {
  const { pageSize } = spec;
  const range = { start: spec.gpa as bigint, length: spec.length };
  if (!Number.isInteger(pageSize) || pageSize < 4096 || 2 ** Math.round(Math.log2(pageSize)) !== pageSize) {
    throw new DemandPagingError('BAD_ALIGNMENT', `a page size of ${pageSize} is no power of two from 4096`, {
      range,
    });
  }
  if (spec.length <= 0n)
    throw new DemandPagingError(
      'BAD_RANGE',
      `the region at ${hex(spec.gpa)} has a length of ${spec.length}`,
      { range },
    );
  const edges = {
    gpa: spec.gpa,
    length: spec.length,
    hva: spec.hva ?? 0n,
    'file offset': spec.file?.offset ?? 0n,
  };
  for (const [what, value] of Object.entries(edges)) {
    if (value % BigInt(pageSize) !== 0n) {
      throw new DemandPagingError(
        'BAD_ALIGNMENT',
        `the region's ${what} ${hex(value)} is not aligned to its ${pageSize}-byte pages`,
        { range },
      );
    }
  }
  if (!CHOICES.includes(spec.contents))
    throw new RangeError(
      `a region's contents are '${String(spec.contents)}'; they take refuse, discard, keep`,
    );
  if (spec.gpa + spec.length > 1n << 64n)
    throw new DemandPagingError('BAD_RANGE', `the region at ${hex(spec.gpa)} passes 64 bits`, { range });
}

/** Sorted by address only neighbours can overlap: the cost of a sort, whatever the number of regions. */
function refuseOverlap(regions: readonly RegionSpec[]): void {
  const inGuest = regions.map((region) => ({ region, start: region.gpa as bigint }));
  refuseNeighbours(inGuest, '');
  const inHost = regions.flatMap((region) =>
    region.hva === undefined ? [] : [{ region, start: region.hva as bigint }],
  );
  refuseNeighbours(inHost, ' in host memory');
}

function refuseNeighbours(
  places: { readonly region: RegionSpec; readonly start: bigint }[],
  where: string,
): void {
  places.sort((a, b) => compare(a.start, b.start));
  for (let i = 1; i < places.length; i++) {
    const before = places[i - 1]!;
    const { region, start } = places[i]!;
    if (start >= before.start + before.region.length) continue;
    throw new DemandPagingError(
      'BAD_RANGE',
      `the regions at ${hex(before.region.gpa)} and ${hex(region.gpa)} overlap${where}`,
      { range: { start: region.gpa, length: region.length } },
    );
  }
}

const compare = (a: bigint, b: bigint): number => (a < b ? -1 : a > b ? 1 : 0);
