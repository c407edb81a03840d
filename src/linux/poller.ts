import { ERRNO } from './failure.js';
import { NativeBlock } from './native-block.js';
import * as raw from './raw.js';

/** Event bits of poll(2), equal on x86-64 and arm64. */
export const POLL = { IN: 0x001, PRI: 0x002, OUT: 0x004, ERR: 0x008, HUP: 0x010, NVAL: 0x020 } as const;

const ENTRY_BYTES = 8; // struct pollfd: int fd, short events, short revents

/**
 * poll(2) over a fixed set of descriptors, without allocating: the set of a resolver is its
 * userfaultfd and an eventfd that stops it. A userfaultfd must be non-blocking, or poll answers ERR.
 * Blocks: {@link wait} blocks the thread, event loop included.
 */
export class Poller {
  readonly #block: NativeBlock;
  readonly #count: number;
  #closed = false;

  constructor(fds: readonly number[], events: number = POLL.IN) {
    this.#count = fds.length;
    this.#block = new NativeBlock(Math.max(1, fds.length) * ENTRY_BYTES);
    fds.forEach((fd, index) => {
      this.#block.view.setInt32(index * ENTRY_BYTES, fd, true);
      this.#block.view.setInt16(index * ENTRY_BYTES + 4, events, true);
    });
  }

  /**
   * Waits until one descriptor is ready: how many are, 0 after `timeout_ms`, or `-errno`
   * (-EINTR for a signal, -EBADF after {@link close}). A negative timeout waits without end.
   */
  wait(timeout_ms: number): number {
    if (this.#closed) return -ERRNO.EBADF;
    return raw.poll(this.#block.address, this.#count, timeout_ms);
  }

  /** What descriptor `index` is ready for, as {@link POLL} bits; of the last {@link wait}. */
  ready(index: number): number {
    if (this.#closed || index >= this.#count) return 0;
    return this.#block.view.getUint16(index * ENTRY_BYTES + 6, true);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#block.free();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
