import {
  FLAG,
  type FaultBatch,
  type FaultPort,
  type MemoryEvent,
  OUTCOME,
  type Outcome,
  type OutsideFault,
  type ResolutionBatch,
  VERB,
  type Wait,
} from '../../src/api/index.js';

/**
 * A port over an array of pages, one byte a page, driven by hand: what the engine's own tests need and no
 * more.
 */
export class FakePort implements FaultPort {
  readonly staging = new Uint8Array(64 * 4096);
  /** Content of each page: undefined for missing, -1 for poison. */
  readonly pages: (number | undefined)[];
  readonly log: string[] = [];
  /** Rows that meet EAGAIN before they go on. */
  againLeft = 0;
  waits: string[] = [];
  closed = false;
  /** Where pages are found at addresses outside, once somebody has said so. */
  readonly found = new Map<number, number>();
  /** What accesses outside are answered with, in turn; then `installed`. */
  outcomes: Outcome[] = [];
  readonly #incoming: (
    { page: number; kind?: 'missing' | 'minor' } | { event: MemoryEvent } | { outside: number }
  )[] = [];

  constructor(pageCount: number) {
    this.pages = new Array<number | undefined>(pageCount).fill(undefined);
  }

  fault(page: number): void {
    this.#incoming.push({ page });
  }

  event(event: MemoryEvent): void {
    this.#incoming.push({ event });
  }

  outside(address: number): void {
    this.#incoming.push({ outside: address });
  }

  locate(address: number): number {
    return this.found.get(address) ?? -1;
  }

  answerOutside({ address }: OutsideFault, answer: 'zeros' | 'poison'): Outcome {
    const outcome = this.outcomes.shift() ?? 'installed';
    this.log.push(`${answer} at ${address}: ${outcome}`);
    return outcome;
  }

  take(batch: FaultBatch, wait: Wait, timeout_ms: number): number {
    this.waits.push(`${wait} ${timeout_ms}`);
    let taken = 0;
    for (let next = this.#incoming[0]; next && !batch.full; next = this.#incoming[0]) {
      this.#incoming.shift();
      if ('event' in next) batch.pushEvent(next.event);
      else if ('outside' in next) batch.pushOutside(0, next.outside, 0);
      else batch.push({ kind: next.kind ?? 'missing', page: next.page });
      taken++;
    }
    return taken;
  }

  ready(): Promise<void> {
    return this.#incoming.length > 0 ? Promise.resolve() : new Promise(() => {});
  }

  resolve(batch: ResolutionBatch): void {
    for (let row = 0; row < batch.count; row++) this.#row(batch, row);
  }

  #row(batch: ResolutionBatch, row: number): void {
    const [verb, first, span] = [batch.verb[row]!, batch.page[row]!, batch.span[row]!];
    const name = Object.keys(VERB)[verb]!;
    if (verb === VERB.wake || verb === VERB.fail) {
      this.log.push(`${name} ${first}+${span}`);
      return batch.settle(row, OUTCOME.installed, span);
    }
    if (this.againLeft > 0) {
      this.againLeft--;
      return batch.settle(row, OUTCOME.again, 0, 11);
    }
    for (let done = 0; done < span; done++) {
      if (this.pages[first + done] !== undefined && verb !== VERB.writeprotect && verb !== VERB.rwprotect) {
        this.log.push(`${name} ${first}+${done} EEXIST`);
        return batch.settle(row, OUTCOME['already-present'], done, 17);
      }
      if (verb === VERB.copy) this.pages[first + done] = this.staging[batch.from[row]! + done * 4096]!;
      else if (verb === VERB.zeropage) this.pages[first + done] = 0;
      else if (verb === VERB.poison) this.pages[first + done] = -1;
    }
    this.log.push(`${name} ${first}+${span}${(batch.flags[row]! & FLAG.protect) !== 0 ? ' protected' : ''}`);
    batch.settle(row, OUTCOME.installed, span);
  }

  resident(page: number): boolean {
    return this.pages[page] !== undefined;
  }

  close(): void {
    this.closed = true;
  }
}
