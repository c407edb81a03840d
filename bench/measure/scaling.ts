import { fitClosedQueue, fitPowerLaw, type RatePoint, type ScalingModel } from 'demand-paging/scenarios';
import { Library } from './library.js';
import { type NativePrograms, loadSharedHalf } from './native.js';
import { type PagingOptions, snapshotSum } from './paging.js';
import { type BenchResult } from './result.js';
import { bootstrapMedian, median, pairwiseRatios } from './statistics.js';

/** A model is fitted on the first and the last, and held against those in between. */
const TOUCHERS = [1, 2, 4, 8, 16];
const BASE = { pageSize: 4096 };
const PLACE = { handler: 1, toucher: 0 };

/**
 * How the rate of one queue goes with the number of those who wait in it: measured, and as a queueing model
 * says that was fitted on two of the points. The ratio is the prediction over what was measured, so that 1 is
 * right.
 */
export async function measureScaling(
  programs: NativePrograms,
  { pages, seed, rounds, progress }: Omit<PagingOptions, 'names'>,
): Promise<BenchResult[]> {
  const shared = loadSharedHalf(programs);
  const memory = { ...BASE, pages, seed };
  const sum = snapshotSum(shared, memory);
  const library = new Library(shared, memory);
  const rates = TOUCHERS.map((): number[] => []);
  for (let round = 0; round < rounds; round++) {
    const order = [...TOUCHERS.keys()];
    for (const at of round % 2 === 0 ? order : order.toReversed()) {
      const run = { wait: 'block', order: 'random', seed: round + 1, place: PLACE } as const;
      const measured = await library.faults(run, { faultAroundPages: 1 }, TOUCHERS[at]!);
      if (measured.sum !== sum) throw new Error('scaling: the memory is not the snapshot’s');
      rates[at]!.push(measured.rate);
    }
    progress('scaling', round + 1, rounds);
  }
  return predictions(rates, rounds);
}

function predictions(rates: readonly (readonly number[])[], runs: number): BenchResult[] {
  const curves = Array.from({ length: runs }, (_, round) =>
    TOUCHERS.map((vcpus, at): RatePoint => ({ vcpus, kiloPagesPerSecond: rates[at]![round]! / 1000 })),
  );
  const models = curves.map((curve) => fitted(curve[0]!, curve.at(-1)!));
  return TOUCHERS.slice(1, -1).map((touchers, between): BenchResult => {
    const each = models.map((model) => model.rate(touchers) * 1000);
    const measured = rates[between + 1]!;
    const { value, interval } = bootstrapMedian(pairwiseRatios(each, measured));
    const names = [...new Set(models.map(({ name }) => name))].join(', or ');
    return {
      name: `one queue, ${touchers} touchers, predicted`,
      ratio: value,
      interval,
      goal: undefined,
      met: undefined,
      runs,
      ours: {
        what: `${names}, fitted on ${TOUCHERS[0]} and ${TOUCHERS.at(-1)}`,
        value: median(each),
        unit: 'pages/s',
        each,
      },
      reference: { what: 'measured', value: median(measured), unit: 'pages/s', each: measured },
    };
  });
}

/**
 * A queue that gets busier; where the rate rises by more than one queue's can (faults are then served in
 * batches), a power law.
 */
function fitted(first: RatePoint, last: RatePoint): ScalingModel {
  try {
    return fitClosedQueue(first, last);
  } catch (error) {
    if (error instanceof RangeError) return fitPowerLaw(first, last);
    throw error;
  }
}
