import { eventLoopTurn, type Gpa } from '../api/index.js';

/** When a page was fetched, in milliseconds of the source's clock. */
export interface FetchTime {
  readonly page: Gpa;
  readonly from_ms: number;
  readonly to_ms: number;
}

/**
 * A source with a latency and a clock of its own: time passes only while somebody waits, so what is
 * measured on it is the order of the fetches and nothing of this machine's.
 */
export class VirtualSource {
  readonly fetches: FetchTime[] = [];
  now_ms = 0;
  #waiting: { readonly due_ms: number; readonly arrive: () => void }[] = [];
  #ticking = false;
  /** Turns of the event loop that are being taken by what goes on without a page. */
  #turns = 0;

  constructor(private readonly latency_ms: number) {}

  /** Resolves when the pages have arrived: one latency from now. */
  async wait(pages: readonly Gpa[]): Promise<void> {
    const from_ms = this.now_ms;
    const due_ms = from_ms + this.latency_ms;
    await new Promise<void>((arrive) => {
      this.#waiting.push({ due_ms, arrive });
      this.#tick();
    });
    for (const page of pages) this.fetches.push({ page, from_ms, to_ms: due_ms });
  }

  /** A turn of the event loop, in which no time passes. */
  readonly turn = async (): Promise<void> => {
    this.#turns++;
    await eventLoopTurn();
    this.#turns--;
  };

  /** Once everything that can go on without a page has done so, the next arrival is. */
  #tick(): void {
    if (this.#ticking) return;
    this.#ticking = true;
    setImmediate(() => {
      this.#ticking = false;
      if (this.#turns > 0) return this.#tick();
      this.now_ms = Math.min(...this.#waiting.map(({ due_ms }) => due_ms));
      const due = this.#waiting.filter(({ due_ms }) => due_ms <= this.now_ms);
      this.#waiting = this.#waiting.filter(({ due_ms }) => due_ms > this.now_ms);
      for (const { arrive } of due) arrive();
      if (this.#waiting.length > 0) this.#tick();
    });
  }
}
