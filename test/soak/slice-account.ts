import { mulberry32 } from '../../src/accessors/walk.js';
import { type Failure, type Progress, type SliceMessage, type SliceTask } from './messages.js';

const TELL_EVERY_MS = 250;

/** What ends a slice. */
export class SliceFailure extends Error {
  override readonly name = 'SliceFailure';

  constructor(readonly failure: Failure) {
    super(failure.what);
  }
}

export const wrong = (what: string): SliceFailure => new SliceFailure({ kind: 'wrong', what });

/** The account of a slice: its chance, what it has done, what is under way, and since when. */
export class SliceAccount {
  /** A number in [0, 1), from the seed. */
  readonly random: () => number;
  reads = 0;
  kills = 0;
  /** Of the pager that is open now, or of the last. */
  statistics: () => object | undefined = () => undefined;
  /** What pages are, where something is under way: told when the slice fails. */
  pagesNow: () => readonly string[] = () => [];
  /** Faults of the pager that is open now. */
  faultsNow: () => number = () => 0;
  #faults = 0;
  readonly #began = performance.now();
  readonly #under = new Map<number, { readonly what: string; readonly since: number }>();
  #next = 0;
  readonly #timer: NodeJS.Timeout;
  readonly #hung: Promise<never>;

  constructor(
    readonly task: SliceTask,
    private readonly tell: (message: SliceMessage) => void,
  ) {
    this.random = mulberry32(task.seed);
    let hang: (error: SliceFailure) => void;
    this.#hung = new Promise((_resolve, reject) => (hang = reject));
    this.#hung.catch(() => {}); // also where nothing waits for it
    this.#timer = setInterval(() => {
      tell({ kind: 'progress', progress: this.progress });
      const since = performance.now() - task.hang_ms;
      if ([...this.#under.values()].some((each) => each.since < since))
        hang(new SliceFailure({ kind: 'hang', what: `took longer than ${task.hang_ms} ms` }));
    }, TELL_EVERY_MS);
  }

  get faults(): number {
    return this.#faults + this.faultsNow();
  }

  /** Whether so much of the slice is over, by its faults or by its time. */
  isOver(share = 1): boolean {
    const { faults, most_ms } = this.task;
    return this.faults >= share * faults || performance.now() - this.#began >= share * most_ms;
  }

  get progress(): Progress {
    const now = performance.now();
    return {
      faults: this.faults,
      reads: this.reads,
      kills: this.kills,
      doing: [...this.#under.values()].map(({ what, since }) => `${what}, for ${Math.round(now - since)} ms`),
      statistics: this.statistics(),
    };
  }

  /** A whole number below `limit`. */
  below(limit: number): number {
    return Math.floor(this.random() * limit);
  }

  /** Rejects, as whatever else is under way does, when it takes too long. */
  async during<T>(what: string, promise: Promise<T>): Promise<T> {
    const id = this.#next++;
    this.#under.set(id, { what, since: performance.now() });
    try {
      return await Promise.race([promise, this.#hung]);
    } finally {
      // What stands is named after the failure.
      void promise.then(
        () => this.#under.delete(id),
        () => this.#under.delete(id),
      );
    }
  }

  /** The pager that was open is closed, with so many faults. */
  closed(): void {
    this.#faults += this.faultsNow();
    this.faultsNow = () => 0;
  }

  end(failure?: Failure): void {
    clearInterval(this.#timer);
    const { progress } = this;
    if (!failure) return this.tell({ kind: 'done', progress });
    const doing = [...progress.doing, ...this.pagesNow()];
    this.tell({ kind: 'failed', failure, progress: { ...progress, doing } });
  }
}
