import { type PageRange, type Shard } from '../api/index.js';
import {
  ModelAttachment,
  type ModelAttachmentParts,
  type ModelKernel,
  type Stepper,
} from '../backends/memory/index.js';
import { type SteppedAccess, type SteppedAccessRequest, type Stepping } from '../conformance/index.js';
import { type KernelSide, type Surroundings } from './definition.js';
import { NoWakePort } from './no-wake-port.js';

/** A prototype bound to a layout. Pages that the pager takes back are taken back from the prototype, too. */
export class UapiAttachment extends ModelAttachment {
  readonly stepping: UapiStepping;
  override readonly shards: readonly Shard[];

  constructor(parts: ModelAttachmentParts, side: KernelSide, { wakesOnExist }: Surroundings) {
    super(parts);
    const port = wakesOnExist ? this.port : new NoWakePort(this.port, parts.kernel);
    this.shards = [
      {
        pages: { first: 0, count: this.layout.pageCount },
        port: { where: 'here', open: () => port },
        kick: () => parts.kernel.queue.kick(),
      },
    ];
    this.stepping = new UapiStepping(parts.kernel, side);
  }

  override async discard(pages: PageRange): Promise<void> {
    this.stepping.clearPresence(pages);
    await super.discard(pages);
  }
}

/** The conformance suite's seam into a prototype's kernel. */
export class UapiStepping implements Stepping {
  readonly #kernel: ModelKernel;
  readonly #side: KernelSide;

  constructor(kernel: ModelKernel, side: KernelSide) {
    this.#kernel = kernel;
    this.#side = side;
  }

  get hasWork(): boolean {
    return this.#kernel.hasWork;
  }

  get queue(): ModelKernel['queue'] {
    return this.#kernel.queue;
  }

  set preempt(preempt: (stuck: boolean) => void) {
    this.#kernel.preempt = preempt;
  }

  get preempt(): (stuck: boolean) => void {
    return this.#kernel.preempt;
  }

  set trace(trace: ModelKernel['trace']) {
    this.#kernel.trace = trace;
  }

  get trace(): ModelKernel['trace'] {
    return this.#kernel.trace;
  }

  access(request: SteppedAccessRequest): SteppedAccess {
    return this.#kernel.access(request);
  }

  /** Any thread's way but the pager's: it leaves the prototype's presence as it is. */
  discard(pages: PageRange, how: 'dontneed' | 'remove' = 'dontneed'): Stepper {
    const shared = this.#kernel.memory.layout.regionOf(pages.first).memory !== 'anonymous';
    return this.#kernel.discard(pages, shared ? 'remove' : how);
  }

  /** The pager's own way. */
  discardEverywhere(pages: PageRange): Stepper {
    this.clearPresence(pages);
    return this.#kernel.discardEverywhere(pages);
  }

  unmap(pages: PageRange): Stepper {
    return this.#kernel.unmap(pages);
  }

  sendUnknown(number: number): void {
    this.#kernel.sendUnknown(number);
  }

  /** Every page has come: the VMM ends demand paging. Whether it can. */
  turnOff(): boolean {
    const because = this.#side.turnOff;
    if (because === undefined) return false;
    this.#kernel.trace?.({ actor: { kind: 'vmm' }, kind: 'mapped-as-block', because, page: 0 });
    return true;
  }

  clearPresence({ first, count }: PageRange): void {
    for (let page = first; page < first + count; page++) this.#side.discardedByPager?.(page, this.#kernel);
  }
}
