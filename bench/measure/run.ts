/** The memory of a measurement: the same kind and size on both sides, populated from the same snapshot. */
export interface Memory {
  readonly pages: number;
  readonly pageSize: number;
  /** Of the snapshot. */
  readonly seed: number;
}

export const bytesOf = ({ pages, pageSize }: Memory): number => pages * pageSize;

/**
 * Which cpus the two threads of a measurement are bound to. Unbound, the scheduler decides between one cpu
 * (a context switch a fault) and two (a wake-up across cpus a fault, ten times as long on some
 * machines), anew from run to run: what would be compared then is its luck.
 */
export interface Place {
  readonly handler: number;
  readonly toucher: number;
}

/** A run in which a toucher makes faults and a handler serves them. */
export interface FaultRun {
  readonly wait: 'block' | 'spin';
  readonly order: 'random' | 'sequential';
  readonly seed: number;
  readonly place: Place;
}

export interface Measured {
  /** Pages a second. */
  readonly rate: number;
  /** Of the whole memory afterwards. */
  readonly sum: bigint;
}

export const rateOf = (pages: number, took_ns: number): number => (pages / took_ns) * 1e9;
