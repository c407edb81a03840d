import { DemandPagingError, hint, type Program } from '../api/index.js';

/** Bounds of one operation, against tables that a hostile guest wrote. */
export interface WorkLimits {
  /**
   * Steps of one operation (default 2^24): table entries looked at, LPIs walked and commands executed. KVM
   * has no such bound. What a guest needs stays far below; tables that name one another's pages go far
   * beyond.
   */
  readonly maxSteps?: number;
  /** LPIs, and translation table entries, that exist at a time (default 2^21): some 60 bytes each. */
  readonly maxEntries?: number;
}

const MAX_STEPS = 2 ** 24;
const MAX_ENTRIES = 2 ** 21;
/** Steps between two looks at the bound; some 0.1 ms. */
const STRIDE = 4096;

/** The bound that cut an operation short. */
export type WorkBound = keyof WorkLimits;

/** An operation went over a bound. It says which. */
export class WorkLimitError extends DemandPagingError {
  constructor(
    readonly bound: WorkBound,
    limit: number,
  ) {
    const what = bound === 'maxSteps' ? 'steps' : 'LPIs or translation table entries';
    super('LIMIT_REACHED', `the operation needs more than ${limit} ${what}`, {
      hint: `The tables are hostile, or ${bound} is to be raised`,
    });
  }
}

/** Throws RangeError for a bound that is no positive integer. */
export const checkLimits = (limits: WorkLimits): void => void new Work(limits);

/** The steps that one operation has taken. */
export class Work {
  readonly #maxSteps: number;
  readonly maxEntries: number;
  #steps = 0;
  #next: number;

  constructor({ maxSteps = MAX_STEPS, maxEntries = MAX_ENTRIES }: WorkLimits = {}) {
    this.#maxSteps = positive('maxSteps', maxSteps);
    this.maxEntries = positive('maxEntries', maxEntries);
    this.#next = Math.min(STRIDE, this.#maxSteps);
  }

  /** Counts a step. True if it is time to {@link pause}, whose call costs more than many a step. */
  step(): boolean {
    return ++this.#steps > this.#next;
  }

  /**
   * Lets a driver look after its event loop, by a hint that names no range. Throws {@link WorkLimitError} if
   * the bound is reached.
   */
  *pause(): Program<void> {
    if (this.#steps > this.#maxSteps) throw new WorkLimitError('maxSteps', this.#maxSteps);
    this.#next = Math.min(this.#steps + STRIDE, this.#maxSteps);
    yield* hint('at-work', []);
  }
}

function positive(name: WorkBound, value: number): number {
  if (Number.isSafeInteger(value) && value > 0) return value;
  throw new RangeError(`${name} ${value} is not a positive integer`);
}
