import { type Errno, type Gpa } from '../api/index.js';
import type { PlanMemory } from './plan-memory.js';

/** One page of a plan: asked for, and perhaps arrived. */
export interface Fetch {
  readonly page: Gpa;
  /** Rounds that had to end before this page was known to be wanted, plus its own; 0 if it was present. */
  readonly round: number;
  demanded: boolean;
  started: boolean;
  /** The content, or a positive errno; undefined until it arrives. */
  content: Uint8Array | Errno | undefined;
}

/** The fetches of a plan: each page once, a bounded number under way, demanded ones first. */
export class PlanFetches {
  readonly #all = new Map<Gpa, Fetch>();
  readonly #demanded: Fetch[] = [];
  readonly #guessed: Fetch[] = [];
  #nextDemanded = 0;
  #nextGuessed = 0;
  #inFlight = 0;
  #failure: { readonly error: unknown } | undefined;
  #abandoned = false;
  /** Resolves at the next arrival. */
  #arrival!: Promise<void>;
  #announce!: () => void;

  constructor(
    private readonly memory: PlanMemory,
    private readonly limit: number,
    private readonly signal?: AbortSignal,
  ) {
    if (!Number.isInteger(limit) || limit < 1)
      throw new RangeError(`inFlight ${limit} is not a positive integer`);
    this.#awaitNext();
    signal?.addEventListener('abort', this.#onAbort);
  }

  /** Listens to the signal no longer. */
  end(): void {
    this.signal?.removeEventListener('abort', this.#onAbort);
  }

  get size(): number {
    return this.#all.size;
  }

  all(): IterableIterator<Fetch> {
    return this.#all.values();
  }

  get(page: Gpa): Fetch | undefined {
    return this.#all.get(page);
  }

  /** Asks for a page, now wanted for certain or only guessed. `round` counts if it is new. */
  request(page: Gpa, round: number, demanded: boolean): Fetch {
    const known = this.#all.get(page);
    if (known !== undefined) {
      if (demanded && !known.demanded) {
        known.demanded = true;
        if (!known.started) this.#demanded.push(known);
      }
      return known;
    }
    const actual = this.memory.present(page) ? 0 : round;
    const fetch: Fetch = { page, round: actual, demanded, started: false, content: undefined };
    this.#all.set(page, fetch);
    (demanded ? this.#demanded : this.#guessed).push(fetch);
    return fetch;
  }

  /** Waits for one page. Rejects if the memory's fetch rejected. */
  async arrive(fetch: Fetch): Promise<Uint8Array | Errno> {
    for (;;) {
      this.start();
      if (this.#failure !== undefined) throw this.#failure.error;
      if (fetch.content !== undefined) return fetch.content;
      await this.#arrival;
    }
  }

  /** Starts what may be started. */
  start(): void {
    const batch: Fetch[] = [];
    while (this.#inFlight + batch.length < this.limit) {
      const next = this.#take(this.#inFlight + batch.length);
      if (next === undefined) break;
      next.started = true;
      batch.push(next);
    }
    if (batch.length > 0) void this.#run(batch);
  }

  /** Waits until every demanded page is here; guesses that were not started are forgotten. */
  async settle(): Promise<void> {
    this.#nextGuessed = this.#guessed.length;
    for (const fetch of this.#demanded) await this.arrive(fetch);
    while (this.#inFlight > 0 && this.signal?.aborted !== true) await this.#arrival;
    if (this.#failure !== undefined) throw this.#failure.error;
    for (const fetch of this.#guessed) if (!fetch.started) this.#all.delete(fetch.page);
  }

  /**
   * Lets go of everything that is held, and of what is under way as it comes; waits for that, unless the
   * signal was aborted.
   */
  async abandon(): Promise<void> {
    this.#nextGuessed = this.#guessed.length;
    this.#nextDemanded = this.#demanded.length;
    this.#abandoned = true;
    this.release(() => true);
    while (this.#inFlight > 0 && this.signal?.aborted !== true) await this.#arrival;
  }

  /** Lets go of the held pages that `which` picks. */
  release(which: (fetch: Fetch) => boolean): void {
    const pages: Gpa[] = [];
    for (const fetch of this.#all.values()) {
      if (typeof fetch.content === 'object' && which(fetch)) pages.push(fetch.page);
    }
    if (pages.length > 0) this.memory.release(pages);
  }

  /** Guesses leave a quarter of the places free, so that a demand seldom waits behind them. */
  #take(inFlight: number): Fetch | undefined {
    while (this.#nextDemanded < this.#demanded.length) {
      const fetch = this.#demanded[this.#nextDemanded++]!;
      if (!fetch.started) return fetch;
    }
    while (inFlight < Math.max(1, this.limit * 0.75) && this.#nextGuessed < this.#guessed.length) {
      const fetch = this.#guessed[this.#nextGuessed++]!;
      if (!fetch.started) return fetch;
    }
    return undefined;
  }

  async #run(batch: readonly Fetch[]): Promise<void> {
    this.#inFlight += batch.length;
    try {
      const contents = await this.memory.fetch(batch.map(({ page }) => page));
      if (contents.length !== batch.length) throw new TypeError('fetch gave a wrong number of results');
      batch.forEach((fetch, index) => (fetch.content = contents[index]));
    } catch (error) {
      this.#failure ??= { error };
    }
    if (this.#abandoned) this.release((fetch) => batch.includes(fetch));
    this.#inFlight -= batch.length;
    this.#tell();
  }

  readonly #onAbort = (): void => {
    this.#failure ??= { error: this.signal!.reason };
    this.#tell();
  };

  #tell(): void {
    const announce = this.#announce;
    this.#awaitNext();
    announce();
  }

  #awaitNext(): void {
    this.#arrival = new Promise((resolve) => (this.#announce = resolve));
  }
}
