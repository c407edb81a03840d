import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  type ErrorCode,
  fileOffset,
  gpa,
  hva,
  MAX_LAYOUT_PAGES,
  MemoryLayout,
  type RegionSpec,
} from '../../src/api/index.js';

const PAGE = 4096;
const HUGE = 0x20_0000;

const spec = (given: Partial<RegionSpec> = {}): RegionSpec => ({
  gpa: gpa(0),
  length: BigInt(4 * PAGE),
  sourceOffset: fileOffset(0),
  memory: 'anonymous',
  pageSize: PAGE,
  ...given,
});

/** Two pages at 1 MiB, a hole, three huge pages at 1 GiB, and two pages right behind them. */
const layout = new MemoryLayout([
  spec({
    gpa: gpa(2 ** 30),
    length: BigInt(3 * HUGE),
    pageSize: HUGE,
    memory: 'hugetlb',
    sourceOffset: fileOffset(HUGE),
  }),
  spec({ gpa: gpa(2 ** 20), length: BigInt(2 * PAGE), sourceOffset: fileOffset(512), hva: hva(0x7000_0000) }),
  spec({ gpa: gpa(2 ** 30 + 3 * HUGE), length: BigInt(2 * PAGE), sourceOffset: fileOffset(0x1000_0000) }),
]);

const range = (start: number, length: number) => ({ start: gpa(start), length: BigInt(length) });

describe('pages of a layout', () => {
  it('numbers: through the regions, in guest-physical order', () => {
    expect(layout.pageCount).toBe(7);
    expect(layout.regions.map(({ firstPage, pageCount }) => [firstPage, pageCount])).toEqual([
      [0, 2],
      [2, 3],
      [5, 2],
    ]);
    expect(layout.pageAt(gpa(2 ** 30 + HUGE + 5))).toBe(3);
    expect(layout.pageAt(gpa(2 ** 20 + 2 * PAGE))).toBe(undefined);
    expect(layout.gpaOf(6)).toBe(gpa(2 ** 30 + 3 * HUGE + PAGE));
  });

  it('source offsets: from their region’s, at any alignment', () => {
    expect([1, 4, 5].map((page) => layout.sourceByteOf(page))).toEqual([512 + PAGE, 3 * HUGE, 0x1000_0000]);
    expect(layout.sourceOffsetOf(4)).toBe(fileOffset(3 * HUGE));
  });

  it('host addresses: where their region is mapped', () => {
    expect(layout.hvaOf(1)).toBe(hva(0x7000_0000 + PAGE));
    expect(() => layout.hvaOf(2)).toThrow(RangeError);
  });

  it('numbers beyond the last: RangeError', () => {
    for (const page of [-1, 7, 2 ** 40, NaN]) expect(() => layout.regionOf(page)).toThrow(RangeError);
  });
});

describe('pages of a range', () => {
  it('of bytes in several regions: every page touched, a run for each region', () => {
    expect(layout.pagesOf(range(2 ** 20 + PAGE - 1, 2))).toEqual([{ first: 0, count: 2 }]);
    expect(layout.pagesOf(range(2 ** 30 + 2 * HUGE + 7, HUGE))).toEqual([
      { first: 4, count: 1 },
      { first: 5, count: 1 },
    ]);
  });

  it('with a byte outside every region, or empty: refused', () => {
    const outside = expect.objectContaining({ code: 'BAD_RANGE' }) as Error;
    expect(() => layout.pagesOf(range(2 ** 20 + PAGE, PAGE + 1))).toThrow(outside);
    expect(() => layout.pagesOf(range(0, 1))).toThrow(outside);
    expect(() => layout.pagesOf(range(2 ** 20, 0))).toThrow(outside);
  });

  it('clipped: only those inside regions', () => {
    expect(layout.pagesInside(range(0, 2 ** 30 + 1))).toEqual([
      { first: 0, count: 2 },
      { first: 2, count: 1 },
    ]);
    expect(layout.pagesInside(range(0, PAGE))).toEqual([]);
  });

  it('to be changed: whole at each edge, by the page size there', () => {
    const misaligned = expect.objectContaining({ code: 'BAD_ALIGNMENT' }) as Error;
    expect(layout.wholePagesOf(range(2 ** 30 + HUGE, 2 * HUGE + PAGE))).toEqual([
      { first: 3, count: 2 },
      { first: 5, count: 1 },
    ]);
    expect(() => layout.wholePagesOf(range(2 ** 30 + PAGE, HUGE))).toThrow(misaligned);
    expect(() => layout.wholePagesOf(range(2 ** 20, PAGE + 1))).toThrow(misaligned);
  });

  it('back to bytes: they hold the range', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 3 * HUGE + 2 * PAGE - 1 }), fc.nat(), (start, size) => {
        const length = 1 + (size % (3 * HUGE + 2 * PAGE - start));
        const asked = range(2 ** 30 + start, length);
        const runs = layout.pagesOf(asked).map((pages) => layout.gpaRangeOf(pages));
        const last = runs.at(-1)!;
        const together = runs.every(
          (run, i) => i === 0 || runs[i - 1]!.start + runs[i - 1]!.length === (run.start as bigint),
        );
        return (
          together &&
          runs[0]!.start <= asked.start &&
          last.start + last.length >= asked.start + asked.length &&
          last.start + last.length - (asked.start + asked.length) < BigInt(HUGE)
        );
      }),
    );
  });
});

describe('a layout that changes', () => {
  const low = spec({ gpa: gpa(0x10_0000) });
  const high = spec({ gpa: gpa(0x20_0000) });
  const make = (): MemoryLayout => new MemoryLayout([high]);
  const add = (to: MemoryLayout, specs: RegionSpec[], alignment = 1): void =>
    to.add(to.plan(specs, alignment));
  const numbers = ({ regions }: MemoryLayout): unknown =>
    regions.map(({ gpa: start, firstPage }) => [start, firstPage]);

  it('added regions: numbered after all others, at any address', () => {
    const changing = make();
    add(changing, [low]);
    expect(numbers(changing)).toEqual([
      [low.gpa, 4],
      [high.gpa, 0],
    ]);
    expect([changing.pageAt(low.gpa), changing.gpaOf(5), changing.pageCount]).toEqual([
      4,
      gpa(low.gpa + BigInt(PAGE)),
      8,
    ]);
    add(changing, [spec({ gpa: gpa(0) })], 64);
    expect(changing.pageAt(gpa(0))).toBe(64);
    expect(() => changing.regionOf(9)).toThrow(RangeError); // between two regions
  });

  it('a removed region: its numbers are not used again, and are still known', () => {
    const changing = make();
    add(changing, [low]);
    changing.remove(changing.regionsOf([{ start: low.gpa, length: low.length }]));
    expect(changing.pageAt(low.gpa)).toBe(undefined);
    expect([changing.isRemoved(4), changing.isRemoved(3), changing.pageCount]).toEqual([true, false, 8]);
    expect(changing.regionOf(5).gpa).toBe(low.gpa);
    add(changing, [low]);
    expect(changing.pageAt(low.gpa)).toBe(8);
    changing.remove(changing.regions);
    expect([changing.regions, changing.pageAt(high.gpa)]).toEqual([[], undefined]);
  });

  it('in another isolate: the same; a region added twice is added once', () => {
    const changing = make();
    add(changing, [low]);
    changing.remove([{ firstPage: 0 }]);
    const other = new MemoryLayout(structuredClone(changing.shape));
    expect([numbers(other), other.pageCount]).toEqual([numbers(changing), 8]);
    const planned = changing.plan([high]);
    for (const each of [changing, changing, other]) each.add(planned);
    expect([numbers(other), other.pageCount]).toEqual([numbers(changing), 12]);
  });

  it('ranges to regions: only whole regions', () => {
    const changing = new MemoryLayout([low, spec({ gpa: gpa(0x10_4000) }), high]);
    expect(changing.regionsOf([range(0x10_0000, 8 * PAGE)]).map(({ firstPage }) => firstPage)).toEqual([
      0, 4,
    ]);
    const wrong = expect.objectContaining({ code: 'BAD_RANGE' }) as Error;
    for (const ranges of [
      [range(0x10_0000, PAGE)],
      [range(0x10_0000 + PAGE, 3 * PAGE)],
      [range(0x10_0000 + PAGE, 4 * PAGE)],
      [range(0x10_0000, 4 * PAGE), range(0x10_0000, 4 * PAGE)],
      [range(0x30_0000, PAGE)],
    ])
      expect(() => changing.regionsOf(ranges)).toThrow(wrong);
  });

  it('moved and unmapped pages: followed, and overlaps at the new address are refused', () => {
    const changing = new MemoryLayout([spec({ hva: hva(0x1_0000) })]);
    changing.move({ first: 0, count: 4 }, hva(0x8_0000));
    changing.move({ first: 1, count: 2 }, hva(0x9_0000));
    changing.move({ first: 2, count: 1 }, undefined);
    expect([0, 1, 3].map((page) => changing.hvaOf(page))).toEqual([0x8_0000n, 0x9_0000n, 0x8_3000n]);
    expect(() => changing.hvaOf(2)).toThrow(expect.objectContaining({ code: 'MEMORY_GONE' }) as Error);
    changing.move({ first: 0, count: 4 }, hva(0xa_0000));
    expect([0, 2, 3].map((page) => changing.hvaOf(page))).toEqual([0xa_0000n, 0xa_2000n, 0xa_3000n]);
    expect(() => changing.plan([spec({ gpa: gpa(2 ** 20), hva: hva(0xa_2000) })])).toThrow('overlap');
    expect(changing.plan([spec({ gpa: gpa(2 ** 20), hva: hva(0x1_0000) })])).toHaveLength(1);
  });
});

describe('a layout', () => {
  it('made again from its specs in another isolate: the same', () => {
    const specs = structuredClone(layout.toSpecs());
    expect(new MemoryLayout(specs).regions).toEqual(layout.regions);
    expect(specs[0]).not.toHaveProperty('firstPage');
  });

  it("mapped region by region: has each region's address", () => {
    const mapped = layout.mappedAt([
      { hva: hva(0x1_0000_0000) },
      { hva: hva(0x2_0000_0000), file: { fd: 5, offset: fileOffset(0) } },
      {},
    ]);
    expect([mapped.hvaOf(0), mapped.hvaOf(3)]).toEqual([hva(0x1_0000_0000), hva(0x2_0000_0000 + HUGE)]);
    expect(mapped.regions[1]!.file).toEqual({ fd: 5, offset: fileOffset(0) });
  });

  // Compared pair by pair they would take minutes: far past the time-out.
  it('of 40 000 regions: checked and searched within seconds', () => {
    const regions = Array.from({ length: 40_000 }, (_, i) =>
      spec({ gpa: gpa(8 * i * PAGE), hva: hva(0x7000_0000_0000 - 8 * i * PAGE) }),
    );
    const large = new MemoryLayout(regions);
    const found = regions.map(({ gpa: start }) => large.pageAt(start));
    expect(found).toEqual(regions.map((_, i) => 4 * i));
    const holes = regions.filter((one) => large.regionAt(gpa(one.gpa + BigInt(4 * PAGE))) !== undefined);
    expect(holes).toEqual([]);
    const clash = spec({ gpa: gpa(8 * 40_000 * PAGE), hva: hva(0x7000_0000_0000 - 8 * 77 * PAGE + PAGE) });
    expect(() => new MemoryLayout([...regions, clash])).toThrow('overlap in host memory');
  });

  it.each<[string, RegionSpec[], ErrorCode]>([
    ['without regions', [], 'BAD_RANGE'],
    ['with an empty region', [spec({ length: 0n })], 'BAD_RANGE'],
    ['with a length that is not whole pages', [spec({ length: BigInt(PAGE + 1) })], 'BAD_ALIGNMENT'],
    ['with a start that is not aligned', [spec({ gpa: gpa(512) })], 'BAD_ALIGNMENT'],
    ['with a mapping that is not aligned', [spec({ hva: hva(100) })], 'BAD_ALIGNMENT'],
    [
      'with a file offset that is not aligned',
      [spec({ file: { fd: 3, offset: fileOffset(1) } })],
      'BAD_ALIGNMENT',
    ],
    ['with pages smaller than 4 KiB', [spec({ pageSize: 2048 })], 'BAD_ALIGNMENT'],
    ['with pages that are no power of two', [spec({ pageSize: 12288, length: 12288n })], 'BAD_ALIGNMENT'],
    ['past 64 bits', [spec({ gpa: gpa(2n ** 64n - BigInt(PAGE)) })], 'BAD_RANGE'],
    ['with regions that overlap', [spec(), spec({ gpa: gpa(3 * PAGE) })], 'BAD_RANGE'],
    [
      'with mappings that overlap',
      [spec({ hva: hva(0x1_0000) }), spec({ gpa: gpa(2 ** 20), hva: hva(0x1_0000 + 3 * PAGE) })],
      'BAD_RANGE',
    ],
    [
      'with more pages than can be numbered',
      [spec({ length: BigInt(MAX_LAYOUT_PAGES + 1) * 4096n })],
      'BAD_RANGE',
    ],
  ])('%s is refused', (_, specs, code) => {
    expect(() => new MemoryLayout(specs)).toThrow(expect.objectContaining({ code }) as Error);
  });
});
