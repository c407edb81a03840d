/** A value with the interval that holds it with 95 % confidence. */
export interface Estimate {
  readonly value: number;
  readonly interval: readonly [low: number, high: number];
}

/** The middle of a list, or the mean of its two middles. Throws RangeError for an empty list. */
export function median(values: readonly number[]): number {
  if (values.length === 0) throw new RangeError('the median of nothing');
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length >>> 1;
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2;
}

/**
 * `ours[i] / reference[i]`: what was measured side by side is compared side by side. Throws RangeError for
 * lists that do not pair.
 */
export function pairwiseRatios(ours: readonly number[], reference: readonly number[]): number[] {
  if (ours.length !== reference.length) {
    throw new RangeError(`${ours.length} runs do not pair with ${reference.length}`);
  }
  return ours.map((value, run) => {
    const other = reference[run]!;
    if (!(other > 0)) throw new RangeError(`run ${run} of the reference is ${other}`);
    return value / other;
  });
}

const RESAMPLES = 10_000;
const SEED = 0x5eed;

/**
 * The median and its percentile-bootstrap interval: the medians of {@link RESAMPLES} lists drawn from the
 * values with replacement, less 2.5 % at either end. The draw is seeded: the same values give the same
 * interval.
 */
export function bootstrapMedian(values: readonly number[], confidence = 0.95): Estimate {
  const value = median(values);
  const random = xorshift(SEED);
  const medians = new Float64Array(RESAMPLES);
  const drawn = new Array<number>(values.length);
  for (let resample = 0; resample < RESAMPLES; resample++) {
    for (let i = 0; i < drawn.length; i++) drawn[i] = values[Math.floor(random() * values.length)]!;
    medians[resample] = median(drawn);
  }
  medians.sort();
  const tail = Math.round(((1 - confidence) / 2) * RESAMPLES);
  return { value, interval: [medians[tail]!, medians[RESAMPLES - 1 - tail]!] };
}

/**
 * Numbers in [0, 1) from a seed that is not 0: Math.random cannot be seeded. Source: Marsaglia, "Xorshift
 * RNGs".
 */
function xorshift(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 0x1_0000_0000;
  };
}
