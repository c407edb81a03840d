import fc from 'fast-check';
import { expect, test } from 'vitest';
import { PendingRuns } from '../../src/kvm/pending-runs.js';
import { chunksAround, regionOf, type SlotRegion } from '../../src/kvm/slot-region.js';

const region = (page: number, count: number, chunk: number): SlotRegion => ({
  page,
  count,
  chunk,
  pageSize: 4096,
  gpa: page * 4096,
  address: 0,
  whileMissing: 0,
  guestMemfd: -1,
  guestMemfdOffset: 0,
});

test('pending runs: any requests: hold the requested chunks, pending chunks of one region, no page twice', () => {
  fc.assert(
    fc.property(
      fc.tuple(fc.integer({ min: 1, max: 80 }), fc.integer({ min: 1, max: 80 })),
      fc.constantFrom(1, 2, 8),
      fc.array(fc.integer({ min: 0, max: 159 }), { maxLength: 6 }),
      fc.array(fc.record({ page: fc.nat(159), longest: fc.constantFrom(1, 4, 16, 64) }), { maxLength: 12 }),
      ([one, other], chunk, shown, asked) => {
        const regions = [region(0, one, chunk), region(one, other, chunk)];
        const chunkOf = (page: number) => chunksAround(regionOf(regions, page)!, { first: page, count: 1 });
        const inChunk = (page: number, { first, count }: { first: number; count: number }) =>
          page >= first && page < first + count;
        const runs = new PendingRuns(regions, (of) => !shown.some((page) => inChunk(page, of)));
        for (const { page: any, longest } of asked) {
          const page = any % (one + other);
          const own = chunkOf(page);
          if (runs.has(page) || shown.some((each) => inChunk(each, own))) continue;
          const run = runs.add(page, longest);
          expect(inChunk(page, run)).toBe(true);
          expect(run.count).toBeLessThanOrEqual(Math.max(longest, own.count));
        }
        const seen = new Set<number>();
        for (const { first, count } of runs.all) {
          expect(regionOf(regions, first)).toBe(regionOf(regions, first + count - 1));
          for (let page = first; page < first + count; page++) {
            expect(seen.has(page), `page ${page} is in two runs`).toBe(false);
            seen.add(page);
            for (const mapped of shown) expect(inChunk(mapped, chunkOf(page))).toBe(false);
          }
        }
      },
    ),
    { numRuns: 1000 },
  );
});

test('pending runs: adjacent runs: do not overlap', () => {
  const runs = new PendingRuns([region(0, 100, 1)], () => true);
  expect(runs.add(40, 16)).toEqual({ first: 40, count: 16 });
  expect(runs.add(60, 64), 'not into the first').toEqual({ first: 56, count: 44 });
  expect(runs.add(39, 64)).toEqual({ first: 0, count: 40 });
});
