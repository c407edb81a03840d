import { duplicate, kickThread, KvmVcpu, threadLives } from '../linux/index.js';
import { type ExitBoard, type Seat } from './exit-board.js';

/** How often a vCPU that does not come out is kicked again: a kick can be lost between two of its looks. */
const KICK_EVERY_MS = 2;

/** The VMM's side of slot changes, where its vCPUs do not pass through gates of ours. */
export interface VmHooks {
  /**
   * Runs `body` with every vCPU out of KVM_RUN and no VM or device ioctl in flight, and keeps it so until
   * `body` returns. Called on the slot thread. A vCPU that waits in a page fault comes out by itself when the page has come:
   * the resolver does not wait for this thread. `body` itself may wait for the thread that opened the pager (a withdrawal
   * is several messages long), which therefore must not wait for `quiesce` to return.
   */
  quiesce<T>(body: () => T): T;
}

/** A module that exports a function making hooks of its options: the slot thread imports it. */
export interface VmHooksRef {
  readonly module: string;
  readonly export: string;
  readonly options: unknown;
}

/**
 * The pause over gates: says so on the board, then has every vCPU that is inside come out: its next entry
 * would return at once (immediate_exit), and a signal ends the present one.
 */
export class GatePause implements VmHooks {
  readonly #board: ExitBoard;
  readonly #run_bytes: number;
  /** Own mappings of the vCPUs' shared pages, by seat, and which of those who sat there it is of. */
  readonly #pages = new Map<number, { readonly sitting: number; readonly page: KvmVcpu }>();

  readonly #meanwhile: () => void;

  /** `meanwhile`: done again and again while a vCPU is waited for. */
  constructor(board: ExitBoard, run_bytes: number, meanwhile: () => void = () => {}) {
    this.#board = board;
    this.#run_bytes = run_bytes;
    this.#meanwhile = meanwhile;
  }

  quiesce<T>(body: () => T): T {
    this.#board.beginPause();
    try {
      for (let vcpu = 0; vcpu < this.#board.vcpus; vcpu++) this.#bringOut(vcpu);
      return body();
    } finally {
      this.#board.endPause();
    }
  }

  close(): void {
    for (const { page } of this.#pages.values()) page.close();
    this.#pages.clear();
  }

  #bringOut(vcpu: number): void {
    while (this.#board.isInside(vcpu)) {
      // Who has come out by itself may leave, and close the descriptor: not while it is used here.
      const seat = this.#board.withSeat(vcpu, (sitting) => this.#exitAtOnce(vcpu, sitting));
      if (seat && !this.#reach(vcpu, seat)) this.#board.abandonSeat(vcpu, seat);
      else if (this.#board.waitOutside(vcpu, KICK_EVERY_MS)) return;
      this.#meanwhile();
    }
  }

  #exitAtOnce(vcpu: number, { descriptor, sitting }: Seat): void {
    if (descriptor === undefined) return;
    let mapped = this.#pages.get(vcpu);
    if (mapped?.sitting !== sitting) {
      mapped?.page.close();
      mapped = { sitting, page: KvmVcpu.adopt(duplicate(descriptor), this.#run_bytes) };
      this.#pages.set(vcpu, mapped);
    }
    mapped.page.run.immediateExit = true;
  }

  /**
   * Interrupts who is inside; false: its thread has ended. One that waits for a page comes out after the page has come,
   * and an ioctl when it ends: those are only looked for.
   */
  #reach(vcpu: number, { descriptor, thread }: Seat): boolean {
    const comesByItself = descriptor === undefined || this.#board.isBlocked(vcpu);
    return comesByItself ? threadLives(thread) : kickThread(thread);
  }
}
