import { duplicate, kickThread, KvmVcpu } from '../linux/index.js';
import { type ExitBoard } from './exit-board.js';

/** How often a vCPU that does not come out is kicked again: a kick can be lost between two of its looks. */
const KICK_EVERY_MS = 2;

/** The VMM's side of slot changes, where its vCPUs do not pass through gates of ours. */
export interface VmHooks {
  /**
   * Runs `body` with every vCPU out of KVM_RUN and no VM or device ioctl in flight, and keeps it so until
   * `body` returns. Called on the slot thread. A vCPU that waits in a page fault comes out by itself when the page has come:
   * the resolver does not wait for this thread.
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
  readonly #runBytes: number;
  /** Own mappings of the vCPUs' shared pages, by descriptor. */
  readonly #pages = new Map<number, KvmVcpu>();

  constructor(board: ExitBoard, runBytes: number) {
    this.#board = board;
    this.#runBytes = runBytes;
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
    for (const page of this.#pages.values()) page.close();
    this.#pages.clear();
  }

  #bringOut(vcpu: number): void {
    while (this.#board.isInside(vcpu)) {
      const descriptor = this.#board.descriptorOf(vcpu);
      if (descriptor < 0) return; // it has left meanwhile
      this.#page(descriptor).run.immediateExit = true;
      // One that waits for a page comes out after the page has come: looked at again below.
      if (!this.#board.isBlocked(vcpu)) kickThread(this.#board.threadOf(vcpu));
      if (this.#board.waitOutside(vcpu, KICK_EVERY_MS)) return;
    }
  }

  #page(descriptor: number): KvmVcpu {
    let page = this.#pages.get(descriptor);
    if (!page) {
      page = KvmVcpu.adopt(duplicate(descriptor), this.#runBytes);
      this.#pages.set(descriptor, page);
    }
    return page;
  }
}
