import { type MemoryEvent, type PageRange } from '../../api/index.js';
import { type EventMessage } from './message-queue.js';
import { type ModelKernel } from './model-kernel.js';
import { type Discard } from './model-memory.js';
import { type Stepper } from './stepper.js';

/** Between two steps of a change: nothing, or an event that must be read before the next. */
export type Step = EventMessage | undefined;

/** A thread that changes the memory behind the pager's back, and waits where the kernel makes it wait. */
export class MemoryChange implements Stepper {
  onRunnable: (() => void) | undefined;
  readonly #steps: Generator<Step, void>;
  readonly #over: () => void;
  #waitsFor: EventMessage | undefined;
  #ended = false;

  constructor(steps: Generator<Step, void>, over: () => void) {
    this.#steps = steps;
    this.#over = over;
  }

  get runnable(): boolean {
    return !this.#ended && (this.#waitsFor === undefined || this.#waitsFor.read);
  }

  get ended(): boolean {
    return this.#ended;
  }

  step(): void {
    if (!this.runnable) return;
    const { value, done } = this.#steps.next();
    this.#waitsFor = done ? undefined : (value as Step);
    if (this.#waitsFor) this.#waitsFor.onRead = () => this.onRunnable?.();
    if (!done) return;
    this.#ended = true;
    this.#over();
  }
}

/**
 * MADV_DONTNEED and MADV_REMOVE: the event first, the pages only after it was read; between the two
 * whatever is installed is dropped with them.
 */
export function* discardSteps(kernel: ModelKernel, pages: PageRange, how: Discard): Generator<Step, void> {
  if (how !== 'punch') yield* announce(kernel, { kind: 'remove', pages }, how);
  for (let page = pages.first; page < pages.first + pages.count; page++) {
    kernel.dropPage(page, how);
    yield;
  }
}

/**
 * As a backend drops pages: of shared memory the page cache first, of which nobody hears, then what is left
 * in the page table, a poison marker for one.
 */
export function* discardEverywhereSteps(kernel: ModelKernel, pages: PageRange): Generator<Step, void> {
  if (kernel.memory.layout.regionOf(pages.first).memory !== 'anonymous')
    yield* discardSteps(kernel, pages, 'punch');
  yield* discardSteps(kernel, pages, 'dontneed');
}

/** munmap(2): the pages first, then the event. */
export function* unmapSteps(kernel: ModelKernel, pages: PageRange): Generator<Step, void> {
  const settle = beginning(kernel, 'unmap');
  for (let page = pages.first; page < pages.first + pages.count; page++) kernel.unmapPage(page);
  yield;
  yield* announced(kernel, { kind: 'unmap', pages }, settle);
}

/** mremap(2): the pages keep their numbers, since the port follows; only the event is of interest. */
export function* remapSteps(kernel: ModelKernel, pages: PageRange, to: number): Generator<Step, void> {
  const settle = beginning(kernel, 'remap');
  yield;
  yield* announced(kernel, { kind: 'remap', pages, to }, settle);
}

/** fork(2): the child has its copy before the parent's handler learns of it. */
export function* forkSteps(kernel: ModelKernel, fd: number): Generator<Step, void> {
  const settle = beginning(kernel, 'fork');
  kernel.forkTo(fd);
  yield;
  yield* announced(kernel, { kind: 'fork', fd }, settle);
}

function* announce(
  kernel: ModelKernel,
  event: Extract<MemoryEvent, { kind: 'remove' }>,
  advice: Exclude<Discard, 'punch'>,
): Generator<Step, void> {
  const settle = beginning(kernel, event.kind);
  const actor = { kind: 'kernel' } as const;
  const page = event.pages.first;
  kernel.trace?.({ actor, kind: 'discard-announced', advice, sent: settle !== undefined, page });
  yield* announced(kernel, event, settle);
}

/**
 * From here on resolutions are told EAGAIN; what it returns ends that. Undefined where the event is not sent.
 */
function beginning(kernel: ModelKernel, kind: MemoryEvent['kind']): (() => void) | undefined {
  if (!kernel.announces(kind)) return undefined;
  kernel.begin();
  return () => kernel.settled();
}

/** Waits until the event is read; the memory counts as changing until the waiting thread has woken up. */
function* announced(
  kernel: ModelKernel,
  event: MemoryEvent,
  settle: (() => void) | undefined,
): Generator<Step, void> {
  if (!settle) return;
  const message = kernel.queue.addEvent(event);
  if (kernel.isReleased) kernel.queue.close();
  yield message;
  settle();
  yield;
}
