import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { AddressMap, type Segment } from '../../../src/backends/userfaultfd/address-map.js';
import { divide } from '../../../src/backends/userfaultfd/shards.js';

const PAGE = 4096;

const segment = (page: number, count: number, start: number): Segment => ({
  page,
  count,
  start: start * PAGE,
  pageSize: PAGE,
  memory: 'anonymous',
  verbs: 1,
  fd: 3,
  fileOffset: page * PAGE,
});

/**
 * Segments of 1 to 6 pages, numbered through, at scattered places of a small address space, not touching each
 * other's.
 */
const segments = fc
  .array(
    fc.record({
      count: fc.integer({ min: 1, max: 6 }),
      gap: fc.integer({ min: 0, max: 3 }),
      key: fc.integer(),
    }),
    { minLength: 1, maxLength: 5 },
  )
  .map((parts) => {
    let start = 10;
    const places = parts.map(({ count, gap }) => {
      const place = start + gap;
      start = place + count;
      return place;
    });
    const order = parts.map((part, i) => ({ ...part, place: places[i]! })).sort((a, b) => a.key - b.key);
    let page = 0;
    return order.map(({ count, place }) => {
      const made = segment(page, count, place);
      page += count;
      return made;
    });
  });

const moves = fc.array(
  fc.record({
    from: fc.integer({ min: 5, max: 60 }),
    length: fc.integer({ min: 1, max: 12 }),
    to: fc.integer({ min: 5, max: 90 }),
  }),
  { maxLength: 6 },
);

/** What the map says in a plain table: page number by page of host memory. */
class Table {
  readonly at = new Map<number, number>();

  constructor(given: readonly Segment[]) {
    for (const { page, count, start } of given)
      for (let i = 0; i < count; i++) this.at.set(start / PAGE + i, page + i);
  }

  move(from: number, to: number, length: number): void {
    const moved = [...this.at].filter(([place]) => place >= from && place < from + length);
    if (moved.length === 0) return;
    for (const [place] of moved) this.at.delete(place);
    // mremap unmaps whatever was at its target.
    for (const place of [...this.at.keys()]) if (place >= to && place < to + length) this.at.delete(place);
    for (const [place, page] of moved) this.at.set(place - from + to, page);
  }
}

describe('the address map', () => {
  test('answers as a plain table does, before and after moves', () => {
    fc.assert(
      fc.property(segments, moves, (given, list) => {
        const map = new AddressMap(given);
        const table = new Table(given);
        for (const { from, length, to } of list) {
          if (Math.abs(from - to) < length) continue; // mremap refuses overlapping places
          map.moveBytes(from * PAGE, to * PAGE, length * PAGE);
          table.move(from, to, length);
        }
        for (let place = 0; place < 110; place++) {
          const page = table.at.get(place) ?? -1;
          expect(map.pageAt(place * PAGE)).toBe(page);
          expect(map.pageAt(place * PAGE + PAGE - 1)).toBe(page);
          if (page < 0) continue;
          expect(map.addressOf(page)).toBe(place * PAGE);
          expect(
            map.at(page)!.fileOffset + (page - map.at(page)!.page) * PAGE,
            'its place in the file stays',
          ).toBe(page * PAGE);
        }
      }),
      { numRuns: 300 },
    );
  });

  test('pagesIn names every page of a range once, in runs', () => {
    fc.assert(
      fc.property(
        segments,
        fc.integer({ min: 5, max: 50 }),
        fc.integer({ min: 1, max: 30 }),
        (given, start, length) => {
          const runs = new AddressMap(given).pagesIn(start * PAGE, (start + length) * PAGE);
          const table = new Table(given);
          const expected = [...table.at]
            .filter(([place]) => place >= start && place < start + length)
            .map(([, page]) => page);
          const named = runs.flatMap(({ first, count }) =>
            Array.from({ length: count }, (_, i) => first + i),
          );
          expect(named).toEqual(expected.sort((a, b) => a - b));
          for (const [i, run] of runs.entries())
            if (i > 0) expect(run.first).toBeGreaterThan(runs[i - 1]!.first + runs[i - 1]!.count);
        },
      ),
      { numRuns: 500 },
    );
  });

  test('addresses near 2^47 are exact', () => {
    const start = 2 ** 47 - 8 * PAGE;
    const map = new AddressMap([{ ...segment(0, 8, 0), start }]);
    expect(map.pageAt(2 ** 47 - 1)).toBe(7);
    expect(map.pageAt(2 ** 47)).toBe(-1);
    expect(map.addressOf(7)).toBe(2 ** 47 - PAGE);
  });
});

describe('shards', () => {
  test('cover every page once, meet at multiples of 4096, and are as many as fit', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 100_000 }), fc.integer({ min: 1, max: 9 }), (pages, shards) => {
        const ranges = divide(pages, shards);
        expect(ranges.length).toBeGreaterThan(0);
        expect(ranges.length).toBeLessThanOrEqual(shards);
        let next = 0;
        for (const { first, count } of ranges) {
          expect(first).toBe(next);
          expect(first % 4096).toBe(0);
          expect(count).toBeGreaterThan(0);
          next += count;
        }
        expect(next).toBe(pages);
      }),
    );
  });
});

test('what is added takes its addresses from whatever was thought to be there', () => {
  fc.assert(
    fc.property(
      segments,
      fc.integer({ min: 5, max: 60 }),
      fc.integer({ min: 1, max: 12 }),
      (given, start, count) => {
        const map = new AddressMap(given);
        const table = new Table(given);
        for (let i = 0; i < count; i++) table.at.set(start + i, 1000 + i);
        map.add([segment(1000, count, start)]);
        for (let place = 0; place < 90; place++)
          expect(map.pageAt(place * PAGE), `place ${place}`).toBe(table.at.get(place) ?? -1);
      },
    ),
  );
});
