import { type Effects, type GuestRam } from '../its/guest-ram.js';
import { type RecordedRam } from '../its/recorder.js';
import { type Census, takeCensus } from './accesses.js';
import { GuestPages } from './guest-pages.js';
import { type Tracer } from './tracer.js';

const PAGE = 4096;

/** An operation, as userfaultfd saw it and as the kernel's trace did. */
export interface TracedOperation {
  readonly effects: Effects;
  readonly census: Census;
}

/** Guest memory whose observed operations are traced besides. */
export class TracedRam implements RecordedRam {
  readonly operations: TracedOperation[] = [];
  readonly #gone = new Set<number>();
  /** Entries the trace has lost: none may be. */
  lost = 0;

  constructor(
    private readonly ram: GuestRam,
    private readonly tracer: Tracer,
  ) {}

  get slots(): GuestRam['slots'] {
    return this.ram.slots;
  }

  reset(slots: Parameters<GuestRam['reset']>[0]): void {
    this.#gone.clear();
    this.ram.reset(slots);
  }

  setWord(gpa: bigint, word: bigint): void {
    this.ram.setWord(gpa, word);
  }

  missPage(gpa: bigint): void {
    this.#gone.add(Number(gpa) - (Number(gpa) % PAGE));
    this.ram.missPage(gpa);
  }

  protectPage(gpa: bigint): void {
    this.ram.protectPage(gpa);
  }

  fillPage(gpa: bigint): void {
    this.#gone.delete(Number(gpa) - (Number(gpa) % PAGE));
    this.ram.fillPage(gpa);
  }

  observe<R>(operation: () => R): { readonly result: R; readonly effects: Effects } {
    const { result: observed, trace } = this.tracer.during(() => this.ram.observe(operation));
    this.lost += trace.lost;
    const census = takeCensus(trace.events, new GuestPages(this.slots, PAGE));
    // An access that fails at once, because the page is gone for good, is no fault that is served.
    const touched = census.touched.filter(({ page }) => !this.#gone.has(page));
    this.operations.push({ effects: observed.effects, census: { ...census, touched } });
    return observed;
  }
}
