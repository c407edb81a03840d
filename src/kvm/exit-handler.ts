import { type VcpuFailure, type VcpuExitResult, type VcpuExitHandler } from '../api/vcpu-exit-handler.js';
import { type PageRange } from '../api/address.js';
import { DemandPagingError } from '../api/error.js';
import {
  copyMemory,
  ERRNO,
  EventFd,
  installKickSignal,
  KVM_EXIT,
  type KvmExit,
  type KvmRun,
  NativeBlock,
  threadId,
} from '../linux/index.js';
import { RESULT, SharedVcpuState, type SharedVcpuStateToken, FAULT } from './shared-vcpu-state.js';
import { chunksAround, pageAt, regionOf, type SlotRegion } from './slot-region.js';
import { isPausedByThisThread } from './own-pause.js';

/** All that a vCPU's thread needs to open its exit handler. Cloneable. */
export interface VcpuExitHandlerToken {
  readonly shared: SharedVcpuStateToken;
  readonly regions: readonly SlotRegion[];
  readonly doorbell: number;
  /** Index of the vCPU in the shared vCPU state. */
  readonly vcpu: number;
  /** Flags of a memory-fault exit that is caused by a missing page. */
  readonly exitFlag: number;
  /** A missing page causes an MMIO exit: the handler carries the access out. */
  readonly mmio: boolean;
}

const FAILURES: Readonly<Record<number, VcpuFailure>> = {
  [RESULT.poisoned]: 'poisoned',
  [RESULT.failed]: 'failed',
  [RESULT.closed]: 'closed',
  [RESULT.stopped]: 'stopped',
};

/** The exit handler of one vCPU over the shared vCPU state. See {@link VcpuExitHandler}. */
class ExitHandler implements VcpuExitHandler<KvmRun> {
  failure: VcpuFailure | undefined;
  readonly #shared: SharedVcpuState;
  readonly #regions: readonly SlotRegion[];
  readonly #vcpu: number;
  readonly #mmio: boolean;
  readonly #exitFlag: number;
  readonly #doorbell: EventFd;
  #cell: NativeBlock | undefined;
  #closed = false;

  constructor(
    { shared, regions, doorbell, vcpu, mmio, exitFlag }: VcpuExitHandlerToken,
    descriptor: number | undefined,
  ) {
    this.#shared = new SharedVcpuState(shared);
    this.#regions = regions;
    this.#vcpu = vcpu;
    this.#mmio = mmio;
    this.#exitFlag = exitFlag;
    if (!this.#shared.register(vcpu, descriptor, threadId())) {
      throw new DemandPagingError('ALREADY_REGISTERED', `the exit handler of vCPU ${vcpu} is already open`);
    }
    this.#doorbell = EventFd.borrow(doorbell);
  }

  enter(): void {
    for (;;) {
      this.#shared.setInside(this.#vcpu, true);
      if ((this.#shared.pause & 1) === 0) return;
      this.#shared.setInside(this.#vcpu, false);
      if (isPausedByThisThread(this.#shared))
        throw new DemandPagingError(
          'DEADLOCK',
          'entering here would wait for a pause that this thread has to end',
          {
            hint: 'Await discard() and freeze() first',
          },
        );
      this.#shared.waitWhilePaused();
    }
  }

  onExit(run: KvmRun, errno: number): VcpuExitResult {
    this.#shared.setInside(this.#vcpu, false);
    this.failure = undefined;
    if (errno === 0) {
      if (run.exitReason !== KVM_EXIT.MMIO) return 'unhandled';
      return this.#mmio ? this.#onMmio(run) : this.#onHole(run);
    }
    if (errno === ERRNO.EINTR) {
      run.immediateExit = false; // it has ended KVM_RUN, which was all that it was set for
      return 'reenter';
    }
    if (errno === ERRNO.EAGAIN) return 'reenter';
    const isFault =
      (errno === ERRNO.EFAULT || errno === ERRNO.EHWPOISON) && run.exitReason === KVM_EXIT.MEMORY_FAULT;
    if (!isFault) return 'unhandled'; // without a memory-fault exit the page is unknown
    if ((run.faultFlags & this.#exitFlag) !== this.#exitFlag) return 'unhandled';
    const page = pageAt(this.#regions, run.faultGpa);
    return page < 0 ? 'unhandled' : this.#wait(page);
  }

  during<T>(body: () => T): T {
    this.enter();
    try {
      return body();
    } finally {
      this.#shared.setInside(this.#vcpu, false);
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#shared.unregister(this.#vcpu);
    this.#doorbell.close();
    this.#cell?.free();
  }

  #wait(page: number): VcpuExitResult {
    const shared = this.#shared;
    // A poisoned page is never requested: the resolver may have ended. A lost page may still be in a memslot.
    const isPoisoned = (): boolean => shared.any('poisoned', this.#chunkOf(page));
    if (isPoisoned()) {
      this.failure = 'poisoned';
      return 'failed';
    }
    if (shared.has('mapped', page)) return 'reenter'; // mapped since the exit
    if (shared.mappable(this.#chunkOf(page))) this.#requestMapping(page);
    else {
      shared.raiseFault(this.#vcpu, page, FAULT.pending);
      if (shared.asleep) this.#doorbell.ring();
    }
    if (shared.closed) shared.completeFaults(page, 1, shared.closedResult);
    // Checked again after the fault was raised, like `closed`: the resolver marks pages poisoned first and
    // then completes the faults that it finds, so either it finds this fault or the mark is seen here.
    if (isPoisoned()) shared.completeFaults(page, 1, RESULT.poisoned);
    const result = shared.awaitCompletion(this.#vcpu);
    if (result === RESULT.retry) return 'reenter';
    this.failure = FAILURES[result];
    return 'failed';
  }

  /** Asks the slot thread to map a populated page for the guest. */
  #requestMapping(page: number): void {
    const shared = this.#shared;
    shared.raiseFault(this.#vcpu, page, FAULT.claimed);
    shared.callSlotThread();
    // The page may have been mapped before the fault was raised, or discarded: each completes only the faults
    // that are raised by then.
    if (shared.has('mapped', page) || !shared.mappable(this.#chunkOf(page))) shared.completeFaults(page, 1);
  }

  #chunkOf(page: number): PageRange {
    return chunksAround(regionOf(this.#regions, page)!, { first: page, count: 1 });
  }

  /** While a guest runs, every page is under some memslot, unless a memslot update was broken off. */
  #onHole(run: KvmRun): VcpuExitResult {
    if (!this.#shared.closed) return 'unhandled';
    const exit = run.exit();
    if (exit.kind !== 'mmio' || pageAt(this.#regions, exit.gpa) < 0) return 'unhandled';
    return this.#failClosed();
  }

  #failClosed(): VcpuExitResult {
    this.failure = FAILURES[this.#shared.closedResult];
    return 'failed';
  }

  /**
   * Carries out a guest's access to a page, if the page may be mapped. Returns whether it did. Precondition:
   * no memslot update is in progress, since that may take the page away.
   */
  #carryOut(run: KvmRun, exit: KvmExit & { readonly kind: 'mmio' }, page: number): boolean {
    if (this.#shared.closed || !this.#shared.mappable({ first: page, count: 1 })) return false;
    const region = regionOf(this.#regions, page)!;
    const address = region.address + exit.gpa - region.gpa;
    const cell = (this.#cell ??= new NativeBlock(16));
    if (exit.write) {
      cell.bytes.set(exit.data);
      copyMemory(address, cell.address, exit.data.length);
    } else {
      copyMemory(cell.address, address, exit.data.length);
      run.answerMmio(cell.bytes.slice(0, exit.data.length));
    }
    return true;
  }

  /** An access to a page under no memslot. The guest waits for the bytes in the middle of the instruction. */
  #onMmio(run: KvmRun): VcpuExitResult {
    const exit = run.exit();
    if (exit.kind !== 'mmio') return 'unhandled';
    const page = pageAt(this.#regions, exit.gpa);
    if (page < 0) return 'unhandled';
    while (!this.during(() => this.#carryOut(run, exit, page))) {
      if (this.#shared.closed) return this.#failClosed();
      const result = this.#wait(page);
      if (result !== 'reenter') return result;
    }
    // An incomplete chunk stays a hole: the next access exits again.
    if (!this.#shared.has('mapped', page) && this.#shared.mappable(this.#chunkOf(page))) {
      this.#requestMapping(page);
      if (this.#shared.closed) this.#shared.completeFaults(page, 1, this.#shared.closedResult);
      this.#shared.awaitCompletion(this.#vcpu); // with any result: the access itself is done
    }
    return 'complete-mmio';
  }
}

/**
 * Opens the exit handler of a vCPU, once, on the thread that runs the vCPU. `descriptor` is the vCPU's; it
 * stays the caller's and must outlive the handler. Without a descriptor the registration is that of a thread
 * that runs no vCPU and uses {@link VcpuExitHandler.during} only, as for ioctls of devices. To stop a vCPU
 * for its own reasons a VMM sets a flag that it reads before each entry, then immediate_exit, then sends a
 * signal: the handler answers EINTR with `reenter`.
 * Blocks: never. Errors: ALREADY_REGISTERED, NATIVE_UNAVAILABLE.
 */
export function openVcpuExitHandler(
  token: VcpuExitHandlerToken,
  descriptor?: number,
): VcpuExitHandler<KvmRun> {
  installKickSignal();
  return new ExitHandler(token, descriptor);
}
