import { type GateFailure, type GateVerdict, type VcpuGate } from '../api/vcpu-gate.js';
import { DemandPagingError } from '../api/error.js';
import {
  copyMemory,
  ERRNO,
  EventFd,
  installKickSignal,
  KVM_EXIT,
  type KvmRun,
  NativeBlock,
  threadId,
} from '../linux/index.js';
import { ANSWER, ExitBoard, type ExitBoardToken, MAIL } from './exit-board.js';
import { pageAt, regionOf, type SlotRegion } from './slot-region.js';

/** All that a vCPU's thread needs to open its gate. Cloneable. */
export interface VcpuGateToken {
  readonly board: ExitBoardToken;
  readonly regions: readonly SlotRegion[];
  readonly doorbell: number;
  /** Which of the board's seats. */
  readonly vcpu: number;
  /** Missing pages surface as MMIO: the gate carries the access out. */
  readonly mmio: boolean;
}

const FAILURES: Readonly<Record<number, GateFailure>> = {
  [ANSWER.poisoned]: 'poisoned',
  [ANSWER.failed]: 'failed',
  [ANSWER.closed]: 'closed',
};

/** The gate of one vCPU over the shared board. See {@link VcpuGate}. */
class BoardGate implements VcpuGate<KvmRun> {
  failure: GateFailure | undefined;
  readonly #board: ExitBoard;
  readonly #regions: readonly SlotRegion[];
  readonly #vcpu: number;
  readonly #mmio: boolean;
  readonly #doorbell: EventFd;
  #cell: NativeBlock | undefined;
  #closed = false;

  constructor({ board, regions, doorbell, vcpu, mmio }: VcpuGateToken, descriptor: number) {
    this.#board = new ExitBoard(board);
    this.#regions = regions;
    this.#vcpu = vcpu;
    this.#mmio = mmio;
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
      this.#board.waitWhilePaused();
    }
  }

  onExit(run: KvmRun, errno: number): GateVerdict {
    this.#board.setInside(this.#vcpu, false);
    this.failure = undefined;
    if (errno === 0) {
      return this.#mmio && run.exitReason === KVM_EXIT.MMIO ? this.#onMmio(run) : 'not-mine';
    }
    if (errno === ERRNO.EINTR) {
      run.immediateExit = false; // it has done its work, whoever set it
      return 'again';
    }
    if (errno === ERRNO.EAGAIN) return 'again';
    const isFault =
      (errno === ERRNO.EFAULT || errno === ERRNO.EHWPOISON) && run.exitReason === KVM_EXIT.MEMORY_FAULT;
    if (!isFault) return 'not-mine'; // without an explanation there is no page to bring
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
    if (board.has('live', page)) return 'again'; // it has come meanwhile
    if (board.has('filled', page)) {
      board.post(this.#vcpu, page, MAIL.taken);
      board.callSlotThread();
      // It may have gone live before the letter was there to be seen.
      if (board.has('live', page)) board.answer(page, 1);
    } else {
      board.post(this.#vcpu, page, MAIL.posted);
      if (board.asleep) this.#doorbell.ring();
    }
    if (board.closed) board.answer(page, 1, ANSWER.closed);
    const answer = board.awaitAnswer(this.#vcpu);
    if (answer === ANSWER.again) return 'again';
    this.failure = FAILURES[answer];
    return 'fatal';
  }

  /** An access to a page in no slot. The guest waits in the middle of the instruction for the bytes. */
  #onMmio(run: KvmRun): GateVerdict {
    const exit = run.exit();
    if (exit.kind !== 'mmio') return 'not-mine';
    const page = pageAt(this.#regions, exit.gpa);
    if (page < 0) return 'not-mine';
    while (!this.#board.has('filled', page)) {
      const verdict = this.#wait(page);
      if (verdict !== 'again') return verdict;
    }
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
    if (!this.#board.has('live', page)) {
      this.#board.post(this.#vcpu, page, MAIL.taken);
      this.#board.callSlotThread();
      if (this.#board.has('live', page)) this.#board.answer(page, 1);
      this.#board.awaitAnswer(this.#vcpu);
    }
    return 'complete-mmio';
  }
}

/**
 * Opens the gate of a vCPU: on the thread that runs it, once. `descriptor` is the vCPU's; it stays the
 * caller's and must outlive the gate. To stop a vCPU of its own accord a VMM sets a flag that it looks at
 * before each entry, then immediate_exit, then sends a signal: the gate answers EINTR with `again`.
 * Blocks: never. Errors: ALREADY_REGISTERED, NATIVE_UNAVAILABLE.
 */
export function openVcpuGate(token: VcpuGateToken, descriptor: number): VcpuGate<KvmRun> {
  installKickSignal();
  return new BoardGate(token, descriptor);
}
