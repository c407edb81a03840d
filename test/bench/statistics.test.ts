import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { bootstrapMedian, median, pairwiseRatios } from '../../bench/measure/statistics.js';
import { againstLimit, keeps } from '../../bench/measure/result.js';

/** Uniform numbers in [0, 1) from a seed: mulberry32, another generator than the one under test. */
function uniform(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}

const finite = fc.double({ min: 1e-3, max: 1e6, noNaN: true });

describe('median', () => {
  it('is the middle, or the mean of the two middles, of an unsorted list left as it was', () => {
    const values = [9, 1, 5];
    expect(median(values)).toBe(5);
    expect(values).toEqual([9, 1, 5]);
    expect(median([4, 1, 3, 100])).toBe(3.5);
    expect(median([10, 9, 100])).toBe(10); // by number, not by digits
  });

  it('refuses an empty list', () => {
    expect(() => median([])).toThrow(RangeError);
  });

  it('has as many values on either side', () => {
    fc.assert(
      fc.property(fc.array(finite, { minLength: 1, maxLength: 40 }), (values) => {
        const middle = median(values);
        const below = values.filter((value) => value < middle).length;
        const above = values.filter((value) => value > middle).length;
        expect(below).toBeLessThanOrEqual(values.length / 2);
        expect(above).toBeLessThanOrEqual(values.length / 2);
      }),
    );
  });
});

describe('pairwise ratios', () => {
  it('divide run by run', () => {
    expect(pairwiseRatios([2, 9, 5], [1, 3, 10])).toEqual([2, 3, 0.5]);
  });

  it('cancel what slows both sides of a pair', () => {
    const machine = [1, 5, 0.2, 3]; // the same loop, five times apart
    const ratios = pairwiseRatios(
      machine.map((factor) => 90 * factor),
      machine.map((factor) => 100 * factor),
    );
    for (const ratio of ratios) expect(ratio).toBeCloseTo(0.9, 12);
  });

  it('refuse lists that do not pair, and a reference of nothing', () => {
    expect(() => pairwiseRatios([1, 2], [1])).toThrow('2 runs do not pair with 1');
    expect(() => pairwiseRatios([1], [0])).toThrow(RangeError);
    expect(() => pairwiseRatios([1], [Number.NaN])).toThrow(RangeError);
  });
});

describe('bootstrapped median', () => {
  it('is certain of a constant', () => {
    expect(bootstrapMedian([0.7, 0.7, 0.7])).toEqual({ value: 0.7, interval: [0.7, 0.7] });
  });

  it('gives the same interval for the same values', () => {
    const values = Array.from({ length: 21 }, uniform(1));
    expect(bootstrapMedian(values)).toEqual(bootstrapMedian(values));
  });

  it('holds the median inside the values, and scales with them', () => {
    fc.assert(
      fc.property(fc.array(finite, { minLength: 3, maxLength: 12 }), (values) => {
        const { value, interval } = bootstrapMedian(values);
        expect(interval[0]).toBeLessThanOrEqual(value);
        expect(interval[1]).toBeGreaterThanOrEqual(value);
        expect(interval[0]).toBeGreaterThanOrEqual(Math.min(...values));
        expect(interval[1]).toBeLessThanOrEqual(Math.max(...values));
        const doubled = bootstrapMedian(values.map((each) => each * 2));
        expect(doubled.interval).toEqual([interval[0] * 2, interval[1] * 2]);
      }),
      { numRuns: 10 },
    );
  });

  it('is narrower with less confidence and with more runs', () => {
    const next = uniform(2);
    const few = Array.from({ length: 21 }, next);
    const many = Array.from({ length: 201 }, next);
    const width = ([low, high]: readonly [number, number]): number => high - low;
    expect(width(bootstrapMedian(few, 0.5).interval)).toBeLessThan(width(bootstrapMedian(few).interval));
    expect(width(bootstrapMedian(many).interval)).toBeLessThan(width(bootstrapMedian(few).interval));
  });

  it('holds the true median about 95 times in a hundred', () => {
    const next = uniform(3);
    const draws = 60;
    let held = 0;
    for (let draw = 0; draw < draws; draw++) {
      const values = Array.from({ length: 21 }, () => -Math.log(1 - next())); // exponential: a long tail
      const { interval } = bootstrapMedian(values);
      if (interval[0] <= Math.LN2 && interval[1] >= Math.LN2) held++;
    }
    expect(held / draws).toBeGreaterThan(0.88);
    expect(held).toBeLessThan(draws); // an interval that always holds it would be too wide
  });
});

describe('a goal', () => {
  it('is kept only when the worse end of the interval keeps it', () => {
    expect(keeps([0.9, 1.2], { atLeast: 0.9 })).toBe(true);
    expect(keeps([0.89, 1.2], { atLeast: 0.9 })).toBe(false);
    expect(keeps([0.1, 1], { atMost: 1 })).toBe(true);
    expect(keeps([0.1, 1.01], { atMost: 1 })).toBe(false);
  });

  it('may be a limit: the ratio is to it', () => {
    const figure = { what: 'held', unit: 'MiB', each: [16, 32, 48] };
    const result = againstLimit('memory', figure, { value: 64, keep: 'atMost' });
    expect(result).toMatchObject({ ratio: 0.5, goal: { atMost: 1 }, met: true, runs: 3 });
    expect(result.ours.value).toBe(32);
    const least = againstLimit('rate', { ...figure, unit: 'MB/s' }, { value: 64, keep: 'atLeast' });
    expect(least).toMatchObject({ goal: { atLeast: 1 }, met: false });
  });
});
