import { type BenchResult, type Goal, keeps } from './result.js';
import { type Measured } from './run.js';
import { bootstrapMedian, median, pairwiseRatios } from './statistics.js';

/** One side of a comparison: what it is, and how to run it once, from the beginning. */
export interface Side {
  readonly what: string;
  /** `round` seeds whatever is random, alike on both sides. */
  run(round: number): Promise<Measured>;
}

export interface Reference extends Side {
  /** Absent where the ratio is only worth knowing. */
  readonly goal?: Goal;
}

export interface Comparison {
  readonly name: string;
  readonly ours: Side;
  /** Each is compared with ours; all run in every round. */
  readonly references: readonly Reference[];
}

export interface Rounds {
  readonly count: number;
  /** What the contents must sum up to after every run of either side. */
  readonly sum: bigint;
  /** Called before every run of either side. */
  prepare?(): void;
  /** Told after every round. */
  progress?(name: string, round: number, count: number): void;
}

/**
 * Runs the sides of a comparison in turns, round after round, the order reversed every other round so that
 * neither profits from what the machine does meanwhile, and compares run with neighbouring run. Every run
 * starts anew, with other memory: which physical pages a process happens to have makes a tenth of its speed,
 * and rounds that shared them would be one sample. Throws when a side's memory is not what the snapshot says.
 */
export async function compare(comparison: Comparison, rounds: Rounds): Promise<BenchResult[]> {
  const { name, ours, references } = comparison;
  // Ours runs next to each of two references.
  const sides: readonly Side[] = [...references.slice(0, 1), ours, ...references.slice(1)];
  const rates = new Map(sides.map((side) => [side, [] as number[]]));
  for (let round = 0; round < rounds.count; round++) {
    for (const side of round % 2 === 0 ? sides : sides.toReversed()) {
      rounds.prepare?.();
      const { rate, sum } = await side.run(round);
      if (sum !== rounds.sum) throw new Error(`${name}, ${side.what}: the memory is not the snapshot's`);
      rates.get(side)!.push(rate);
    }
    rounds.progress?.(name, round + 1, rounds.count);
  }
  const figure = (side: Side) => ({
    what: side.what,
    value: median(rates.get(side)!),
    unit: 'pages/s',
    each: rates.get(side)!,
  });
  return references.map((reference) => {
    const { value, interval } = bootstrapMedian(pairwiseRatios(rates.get(ours)!, rates.get(reference)!));
    const { goal } = reference;
    return {
      name,
      ratio: value,
      interval,
      goal,
      met: goal && keeps(interval, goal),
      runs: rounds.count,
      ours: figure(ours),
      reference: figure(reference),
    };
  });
}
