import { type FaultBatch, type FaultPort, OUTCOME, ResolutionBatch, VERBS, type Wait } from '../api/index.js';
import { type ModelKernel, type ModelPort } from '../backends/memory/index.js';
import { ERRNO } from '../backends/memory/errno.js';

const BRINGS = ['copy', 'zeropage', 'move', 'continue'];

/**
 * A port that takes EEXIST for an answer: the page is there, and its waiters sleep on, as userfaultfd
 * leaves it. A port's contract is to wake; this one is for showing what happens otherwise.
 */
export class NoWakePort implements FaultPort {
  readonly #port: ModelPort;
  readonly #kernel: ModelKernel;
  readonly #one = new ResolutionBatch(1);

  constructor(port: ModelPort, kernel: ModelKernel) {
    this.#port = port;
    this.#kernel = kernel;
  }

  get staging(): Uint8Array {
    return this.#port.staging;
  }

  take(batch: FaultBatch, _wait: Wait): number {
    return this.#port.take(batch);
  }

  ready(): Promise<void> {
    return this.#port.ready();
  }

  resolve(batch: ResolutionBatch): void {
    for (let row = 0; row < batch.count; row++) this.#row(batch, row);
  }

  resident(page: number): boolean {
    return this.#port.resident(page);
  }

  close(): void {
    this.#port.close();
  }

  /** Page by page, so that the inner port never meets one that is there. */
  #row(batch: ResolutionBatch, row: number): void {
    const { pageCount } = this.#kernel.memory.layout;
    const page = batch.page[row]!;
    const span = batch.span[row]!;
    if (!BRINGS.includes(VERBS[batch.verb[row]!]!) || !(page >= 0 && page + span <= pageCount && span >= 1))
      return this.#pass(batch, row, page, span, 0);
    for (let done = 0; done < span; done++) {
      if (this.#kernel.memory.isMapped(page + done)) {
        const outcome = done > 0 ? OUTCOME.again : OUTCOME['already-present'];
        return batch.settle(row, outcome, done, ERRNO.EEXIST);
      }
      this.#pass(batch, row, page + done, 1, done);
      if (batch.outcome[row] !== OUTCOME.installed) return;
    }
  }

  #pass(batch: ResolutionBatch, row: number, page: number, span: number, done: number): void {
    const one = this.#one;
    const size =
      page >= 0 && page < this.#kernel.memory.layout.pageCount ? this.#kernel.memory.pageSize(page | 0) : 0;
    one.clear();
    one.pushRow(batch.verb[row]!, page, span, batch.from[row]! + done * size, batch.flags[row]!);
    this.#port.resolve(one);
    const outcome = one.outcome[0]! === OUTCOME.installed || done === 0 ? one.outcome[0]! : OUTCOME.again;
    batch.settle(row, outcome, done + one.done[0]!, one.errno[0]!);
  }
}
