import { type GateFailure, type GateVerdict, type VcpuGate } from '../api/vcpu-gate.js';
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
import { ANSWER, ExitBoard, type ExitBoardToken, MAIL } from './exit-board.js';
import { chunksAround, pageAt, regionOf, type SlotRegion } from './slot-region.js';
import { isStandingBy } from './standing.js';

/** All that a vCPU's thread needs to open its gate. Cloneable. */
export interface VcpuGateToken {
  readonly board: ExitBoardToken;
  readonly regions: readonly SlotRegion[];
  readonly doorbell: number;
  /** Which of the board's seats. */
  readonly vcpu: number;
  /** Flags that a memory-fault exit has when it is about a missing page. */
  readonly exitFlag: number;
  /** Missing pages surface as MMIO: the gate carries the access out. */
  readonly mmio: boolean;
}

const FAILURES: Readonly<Record<number, GateFailure>> = {
  [ANSWER.poisoned]: 'poisoned',
  [ANSWER.failed]: 'failed',
  [ANSWER.closed]: 'closed',
  [ANSWER.stopped]: 'stopped',
};

/** The gate of one vCPU over the shared board. See {@link VcpuGate}. */
class BoardGate implements VcpuGate<KvmRun> {
  failure: GateFailure | undefined;
  readonly #board: ExitBoard;
  readonly #regions: readonly SlotRegion[];
  readonly #vcpu: number;
  readonly #mmio: boolean;
  readonly #exitFlag: number;
  readonly #doorbell: EventFd;
  #cell: NativeBlock | undefined;
  #closed = false;

  constructor(
    { board, regions, doorbell, vcpu, mmio, exitFlag }: VcpuGateToken,
    descriptor: number | undefined,
  ) {
    this.#board = new ExitBoard(board);
    this.#regions = regions;
    this.#vcpu = vcpu;
    this.#mmio = mmio;
    this.#exitFlag = exitFlag;
    if (!this.#board.sit(vcpu, descriptor, threadId())) {
      throw new DemandPagingError('ALREADY_REGISTERED', `the gate of vCPU ${vcpu} is open already`);
    }
    this.#doorbell = EventFd.borrow(doorbell);
  }

  enter(): void {
    for (;;) {
      this.#board.setInside(this.#vcpu, true);
      if ((this.#board.pause & 1) === 0) return;
      this.#board.setInside(this.#vcpu, false);
      if (isStandingBy(this.#board))
        throw new DemandPagingError('DEADLOCK', 'entering here would wait for this thread itself', {
          hint: 'Await remove(), withdraw() and freeze() before',
        });
      this.#board.waitWhilePaused();
    }
  }

  onExit(run: KvmRun, errno: number): GateVerdict {
    this.#board.setInside(this.#vcpu, false);
    this.failure = undefined;
    if (errno === 0) {
      if (run.exitReason !== KVM_EXIT.MMIO) return 'not-mine';
      return this.#mmio ? this.#onMmio(run) : this.#onHole(run);
    }
    if (errno === ERRNO.EINTR) {
      run.immediateExit = false; // it has done its work, whoever set it
      return 'again';
    }
    if (errno === ERRNO.EAGAIN) return 'again';
    const isFault =
      (errno === ERRNO.EFAULT || errno === ERRNO.EHWPOISON) && run.exitReason === KVM_EXIT.MEMORY_FAULT;
    if (!isFault) return 'not-mine'; // without an explanation there is no page to bring
    if ((run.faultFlags & this.#exitFlag) !== this.#exitFlag) return 'not-mine';
    const page = pageAt(this.#regions, run.faultGpa);
    return page < 0 ? 'not-mine' : this.#wait(page);
  }

  during<T>(body: () => T): T {
    this.enter();
    try {
      return body();
    } finally {
      this.#board.setInside(this.#vcpu, false);
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#board.leaveSeat(this.#vcpu);
    this.#doorbell.close();
    this.#cell?.free();
  }

  #wait(page: number): GateVerdict {
    const board = this.#board;
    // Of a page that cannot be had nobody is asked, who may be gone. One that was lost may be in a slot still.
    const isPoisoned = (): boolean => board.any('poisoned', this.#chunkOf(page));
    if (isPoisoned()) {
      this.failure = 'poisoned';
      return 'fatal';
    }
    if (board.has('live', page)) return 'again'; // it has come meanwhile
    if (board.ready(this.#chunkOf(page))) this.#askToSee(page);
    else {
      board.post(this.#vcpu, page, MAIL.posted);
      if (board.asleep) this.#doorbell.ring();
    }
    if (board.closed) board.answer(page, 1, board.endAnswer);
    // Looked at once more, as the end is: whoever poisons pages answers those whose letters are there by then.
    if (isPoisoned()) board.answer(page, 1, ANSWER.poisoned);
    const answer = board.awaitAnswer(this.#vcpu);
    if (answer === ANSWER.again) return 'again';
    this.failure = FAILURES[answer];
    return 'fatal';
  }

  /** Has the slot thread show a page that is there. */
  #askToSee(page: number): void {
    const board = this.#board;
    board.post(this.#vcpu, page, MAIL.taken);
    board.callSlotThread();
    // It may have gone live before the letter was there to be seen, or have been dropped, whose end answers only letters
    // that are there by then.
    if (board.has('live', page) || !board.ready(this.#chunkOf(page))) board.answer(page, 1);
  }

  #chunkOf(page: number): PageRange {
    return chunksAround(regionOf(this.#regions, page)!, { first: page, count: 1 });
  }

  /** No page of ours is ever in no slot while a guest runs, unless a change of slots was broken off. */
  #onHole(run: KvmRun): GateVerdict {
    if (!this.#board.closed) return 'not-mine';
    const exit = run.exit();
    if (exit.kind !== 'mmio' || pageAt(this.#regions, exit.gpa) < 0) return 'not-mine';
    return this.#end();
  }

  #end(): GateVerdict {
    this.failure = FAILURES[this.#board.endAnswer];
    return 'fatal';
  }

  /** Does a guest's access for it, if the page may be seen. Not during a change of slots, which may take it away. */
  #carryOut(run: KvmRun, exit: KvmExit & { readonly kind: 'mmio' }, page: number): boolean {
    if (this.#board.closed || !this.#board.ready({ first: page, count: 1 })) return false;
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

  /** An access to a page in no slot. The guest waits in the middle of the instruction for the bytes. */
  #onMmio(run: KvmRun): GateVerdict {
    const exit = run.exit();
    if (exit.kind !== 'mmio') return 'not-mine';
    const page = pageAt(this.#regions, exit.gpa);
    if (page < 0) return 'not-mine';
    while (!this.during(() => this.#carryOut(run, exit, page))) {
      if (this.#board.closed) return this.#end();
      const verdict = this.#wait(page);
      if (verdict !== 'again') return verdict;
    }
    // An incomplete chunk stays a hole: the next access comes here again.
    if (!this.#board.has('live', page) && this.#board.ready(this.#chunkOf(page))) {
      this.#askToSee(page);
      if (this.#board.closed) this.#board.answer(page, 1, this.#board.endAnswer);
      this.#board.awaitAnswer(this.#vcpu); // whatever the answer: the access itself is done
    }
    return 'complete-mmio';
  }
}

/**
 * Opens the gate of a vCPU: on the thread that runs it, once. `descriptor` is the vCPU's; it stays the
 * caller's and must outlive the gate. Without one the seat is of a thread that runs no vCPU and uses
 * {@link VcpuGate.during} only, as for the ioctls of devices. To stop a vCPU of its own accord a VMM sets a flag
 * that it looks at before each entry, then immediate_exit, then sends a signal: the gate answers EINTR with `again`.
 * Blocks: never. Errors: ALREADY_REGISTERED, NATIVE_UNAVAILABLE.
 */
export function openVcpuGate(token: VcpuGateToken, descriptor?: number): VcpuGate<KvmRun> {
  installKickSignal();
  return new BoardGate(token, descriptor);
}
