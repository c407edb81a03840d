import { libc } from './ffi.js';
import { check, ERRNO } from './failure.js';
import { load64, NativeBlock, store64 } from './native-block.js';
import * as raw from './raw.js';

const EFD_CLOEXEC = 0o2000000;
const EFD_NONBLOCK = 0o4000;

/**
 * A non-blocking eventfd: one thread rings, another polls {@link fd} and clears it. The descriptor
 * is a number and crosses to workers; there, wrap it with {@link borrow}.
 * Blocks: never. Source: eventfd(2).
 */
export class EventFd {
  readonly fd: number;
  readonly #owned: boolean;
  readonly #value = new NativeBlock(8);
  #closed = false;

  private constructor(fd: number, owned: boolean) {
    this.fd = fd;
    this.#owned = owned;
  }

  static create(): EventFd {
    const fd = libc().eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    return new EventFd(check(fd === -1 ? -libc().errno() : fd, 'eventfd', 'cannot create an eventfd'), true);
  }

  /** One that another isolate owns; closing this leaves the descriptor open. */
  static borrow(fd: number): EventFd {
    return new EventFd(fd, false);
  }

  /** Makes it readable. 0 or `-errno` (-EBADF when closed). */
  ring(): number {
    if (this.#closed) return -ERRNO.EBADF;
    store64(this.#value.words, 0, 1);
    const result = raw.write(this.fd, this.#value.address, 8);
    return result < 0 ? result : 0;
  }

  /** How often it was rung since the last call; 0 when not. Negative: `-errno`. */
  clear(): number {
    if (this.#closed) return -ERRNO.EBADF;
    const result = raw.read(this.fd, this.#value.address, 8);
    if (result === -ERRNO.EAGAIN) return 0;
    return result < 0 ? result : load64(this.#value.words, 0);
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#value.free();
    if (this.#owned) raw.close(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
