import {
  asDemandPagingError,
  completePolicy,
  type GpaRange,
  type MemoryLayout,
  type ResolverEvent,
  type PageIndex,
  type Pager,
  type PagerPolicy,
  type PageRange,
} from '../api/index.js';
import { type RealClock, RealTask } from './real-task.js';
import { type Operation, type OperationRef } from './failure.js';
import { type Paging } from './environment.js';
import { operationText } from './text.js';

/** A pager as a program has it, on a real kernel. */
export class RealPager implements Paging {
  readonly policy: PagerPolicy;
  readonly events: ResolverEvent[] = [];
  readonly #pager: Pager;
  readonly #layout: MemoryLayout;
  readonly #clock: RealClock;
  closed = false;

  constructor(pager: Pager, policy: Partial<PagerPolicy>, clock: RealClock) {
    this.policy = completePolicy(policy);
    this.#pager = pager;
    this.#layout = pager.layout;
    this.#clock = clock;
    this.#listen();
  }

  do(operation: Operation, pages: PageRange): RealTask {
    const ranges = [this.#layout.gpaRangeOf(pages)];
    return this.#task({ operation, pages }, () => this.#carryOut(operation, ranges));
  }

  close(): RealTask {
    const missing = this.#pager.supports.verbs.includes('poison') ? 'poison' : 'leave';
    this.closed = true;
    return this.#task({ operation: 'close' }, () => this.#pager.close({ missing }));
  }

  isPresent(page: PageIndex): boolean {
    return this.#pager.states.isPresent(page);
  }

  load(page: PageIndex, into: Uint8Array): void {
    into.set(this.#pager.memory!.readSync(this.#layout.gpaOf(page), into.length));
  }

  #carryOut(operation: Operation, ranges: readonly GpaRange[]): Promise<unknown> {
    const pager = this.#pager;
    switch (operation) {
      case 'protect':
        return pager.writeProtect(ranges);
      case 'unprotect':
        return pager.writeProtect(ranges, false);
      case 'discard-refetch':
        return pager.discard(ranges, { then: 'refetch' });
      case 'discard-zero':
        return pager.discard(ranges, { then: 'zero' });
      default:
        return pager[operation](ranges);
    }
  }

  #task(operation: OperationRef, start: () => Promise<unknown>): RealTask {
    const codeOf = (error: unknown): string =>
      asDemandPagingError(error, 'KERNEL', operationText(operation)).code;
    return new RealTask(operation, this.#clock, start(), codeOf);
  }

  /** Hears what the pager emits, as the events of a resolver. */
  #listen(): void {
    const heard = (event: ResolverEvent): void => {
      this.events.push(event);
      const page = 'pages' in event ? event.pages.first : undefined;
      this.#clock.note({ actor: { kind: 'pager' }, kind: 'says', event: event.kind, page });
    };
    const pager = this.#pager;
    for (const kind of ['removed', 'unmapped', 'written', 'poisoned'] as const)
      pager.on(kind, (pages) => heard({ kind, pages }));
    pager.on('source-failed', (pages, error) =>
      heard({ kind: 'source-failed', pages, error: error.toPlain() }),
    );
    pager.on('stopped', (error, waiters) => heard({ kind: 'stopped', error: error.toPlain(), waiters }));
  }
}
