import {
  FaultBatch,
  FLAG,
  type Outcome,
  type PageIndex,
  type PageRange,
  type Resolution,
  ResolutionBatch,
  type Supports,
  type Verb,
  VERB,
} from '../api/index.js';
import { must } from './failure.js';
import { pause, type Environment, type Wait } from './environment.js';

/** What came of one row. */
export interface RowResult {
  readonly verb: Verb;
  readonly outcome: Outcome;
  readonly done: number;
  readonly errno: number;
}

/** The body as the resolver of a bare port. */
export class BareResolver {
  readonly environment: Environment;
  /** Faults taken so far, by page. */
  readonly faults: { readonly kind: string; readonly page: PageIndex }[] = [];
  readonly events: string[] = [];
  readonly #batch = new FaultBatch(8);

  constructor(environment: Environment) {
    this.environment = environment;
  }

  /** Takes what there is now; how much it was. */
  take(): number {
    this.#batch.clear();
    const taken = this.environment.port.take(this.#batch, 'none', 0);
    for (let row = 0; row < taken; row++) {
      if (this.#batch.isEvent(row)) this.events.push(this.#batch.event(row).kind);
      else this.faults.push({ kind: this.#batch.fault(row).kind, page: this.#batch.page[row]! });
    }
    return taken;
  }

  /** Carries out one row, once. */
  row(resolution: Resolution): RowResult {
    const batch = new ResolutionBatch(1);
    const row = batch.push(resolution);
    this.environment.port.resolve(batch);
    return resultOf(resolution.verb, batch, row);
  }

  /** Installs bytes as the backend brings contents, once. Precondition: they fit into staging. */
  install(pages: PageRange, bytes: Uint8Array, wake = true): RowResult {
    const { staging } = this.environment.port;
    staging.set(bytes, 0);
    const batch = new ResolutionBatch(1);
    const row = batch.pushRow(...installRow(this.environment.attachment.supports, pages, wake));
    this.environment.port.resolve(batch);
    return resultOf(this.environment.attachment.supports.install, batch, row);
  }

  /** The contents of the source, for a run of pages. */
  original({ first, count }: PageRange): Uint8Array {
    const { contents } = this.environment;
    const bytes = new Uint8Array(count * contents.page_bytes);
    for (let page = 0; page < count; page++)
      bytes.set(contents.page(first + page), page * contents.page_bytes);
    return bytes;
  }

  /** Goes on with a row until it is through, reading events whenever it is told to. Yields in between. */
  *through(pages: PageRange, bytes: Uint8Array): Generator<Wait, RowResult> {
    let result: RowResult = {
      verb: this.environment.attachment.supports.install,
      outcome: 'installed',
      done: 0,
      errno: 0,
    };
    let at = 0;
    while (at < pages.count) {
      const rest = { first: pages.first + at, count: pages.count - at };
      result = this.install(rest, bytes.subarray(at * this.environment.contents.page_bytes));
      if (
        result.outcome !== 'installed' &&
        result.outcome !== 'again' &&
        result.outcome !== 'already-present'
      )
        return result;
      at += result.done + (result.outcome === 'already-present' ? 1 : 0);
      if (result.outcome === 'again') this.take();
      yield pause;
    }
    return result;
  }
}

/** A row came out as it should. `done`: how much of it; default: anything. */
export function mustHaveOutcome(
  page: PageIndex,
  result: RowResult,
  expected: Outcome,
  done = result.done,
): void {
  must(result.outcome === expected && result.done === done, () => ({
    kind: 'wrong-outcome',
    page,
    ...result,
    expected,
  }));
}

const resultOf = (verb: Verb, batch: ResolutionBatch, row: number): RowResult => ({
  verb,
  outcome: batch.outcomeOf(row),
  done: batch.done[row]!,
  errno: batch.errno[row]!,
});

/** The row by which a backend brings contents. */
function installRow(
  { install }: Supports,
  { first, count }: PageRange,
  wake: boolean,
): [number, number, number, number, number] {
  const flags = (wake ? 0 : FLAG.noWake) | (install === 'continue' ? FLAG.fill : 0);
  return [VERB[install], first, count, 0, flags];
}
