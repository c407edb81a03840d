/** The counters of one resolver, in the order of their places in shared memory. */
export const COUNTERS = [
  'missingFaults',
  'minorFaults',
  'writeProtectFaults',
  'rwpFaults',
  'vcpuFaults',
  'kernelFaults',
  'vmmFaults',
  'externalFaults',
  'unattributedFaults',
  'writeFaults',
  'spuriousFaults', // the page was there already
  'joinedFaults', // the page was being fetched already
  'heldFaults', // the page was frozen or being discarded
  'outsideFaults', // at an address outside the layout
  'demandPages', // installed because an access waited
  'aroundPages', // installed because a neighbour was asked for
  'prefetchPages',
  'ensuredPages', // installed because the program asked, not an access
  'zeroPages', // installed as zeros because the page had been removed
  'holePages', // those among the installed that the source said are zeros: no bytes of them were fetched
  'racedPages', // found present though the pager had not installed them
  'removedPages', // removed by the guest or another thread, or discarded with `then: 'zero'`
  'refetchPages', // discarded with `then: 'refetch'`
  'poisonedPages',
  'vanishedPages',
  'fetches',
  'fetched_bytes',
  'retries',
  'sourceFailures',
  'deferredFetches', // waited for a place among those in flight
  'maxInFlight',
  'turns',
  'batches',
  'againOutcomes',
  'droppedEvents',
] as const;

export type Counter = (typeof COUNTERS)[number];

/**
 * Counters in shared memory: one writer (a resolver), any number of readers. A reader sees each
 * counter whole, but not all of one instant.
 */
export class Counters {
  readonly #values: Float64Array;

  constructor(readonly shared = new SharedArrayBuffer(COUNTERS.length * 8)) {
    this.#values = new Float64Array(shared);
  }

  /**
   * `place` is of {@link COUNTER}: several are counted every fault, and looking a name up costs more than
   * counting.
   */
  add(place: number, amount = 1): void {
    this.#values[place]! += amount;
  }

  max(place: number, value: number): void {
    if (value > this.#values[place]!) this.#values[place] = value;
  }

  get(counter: Counter): number {
    return this.#values[COUNTER[counter]]!;
  }
}

/** The place of each counter. */
export const COUNTER = Object.fromEntries(COUNTERS.map((name, place) => [name, place])) as Readonly<
  Record<Counter, number>
>;

/** Percentiles of one latency, in nanoseconds. */
export interface LatencySummary {
  readonly count: number;
  readonly min_ns: number;
  readonly mean_ns: number;
  readonly p50_ns: number;
  readonly p90_ns: number;
  readonly p99_ns: number;
  readonly max_ns: number;
}

/** What the pager did so far. */
export interface Statistics extends Readonly<Record<Counter, number>> {
  readonly pages: number;
  readonly presentPages: number;
  /** From taking a fault to having resolved it, in the resolver. The kernel's own part is not in it. */
  readonly latency: LatencySummary;
}

/** The part of Node's histogram that is read here. */
export interface HistogramLike {
  readonly count: number;
  readonly min: number;
  readonly mean: number;
  readonly max: number;
  percentile(percentile: number): number;
}

export function summarise(histogram: HistogramLike): LatencySummary {
  const { count } = histogram;
  const at = (percentile: number): number => (count === 0 ? 0 : histogram.percentile(percentile));
  return {
    count,
    min_ns: count === 0 ? 0 : histogram.min,
    mean_ns: count === 0 ? 0 : histogram.mean,
    p50_ns: at(50),
    p90_ns: at(90),
    p99_ns: at(99),
    max_ns: histogram.max,
  };
}
