import { Socket, type OnReadOpts, type SocketConstructorOpts } from 'node:net';
import { makePipe } from './descriptor.js';
import { check } from './failure.js';
import { libc } from './ffi.js';
import * as raw from './raw.js';

const O_CLOEXEC = 0o2000000;

/**
 * Reads a non-blocking descriptor on this isolate's event loop: no thread waits for it, however many there
 * are, and none of libuv's pool. What comes is read straight into `into`.
 *
 * Node hands libuv's epoll descriptors of pipes and sockets only. So a Node socket is made over a pipe, and
 * then dup3(2) puts the file of `fd` in the pipe's place. libuv registers a descriptor with epoll when its
 * loop next turns, and of a pipe it asks for nothing but poll and read(2), which an eventfd and a userfaultfd
 * have, too. Node closes the socket, and with it this duplicate, when the isolate ends, also where it is
 * ended by force.
 *
 * It keeps no process and no isolate alive. Blocks: never, as long as the file is non-blocking. Errors:
 * KERNEL (EMFILE). Source: dup(2), epoll(7), read(2).
 */
export class EventLoopReader {
  readonly #socket: Socket;

  /**
   * `read` is called with the number of bytes in `into` when some have come, and with 0 when the descriptor
   * is readable and nothing can be read from it (a pidfd; it is not looked at again then). Unless it answers
   * true, nothing is read afterwards until {@link resume}.
   */
  constructor(fd: number, into: Uint8Array, read: (bytes: number) => unknown) {
    const [reader, writer] = makePipe(true);
    const onread = {
      buffer: into,
      callback: (bytes: number): boolean => read(bytes) === true,
    };
    const options: SocketConstructorOpts & { onread: OnReadOpts } = { fd: reader, writable: false, onread };
    this.#socket = new Socket(options);
    this.#socket.pause();
    this.#socket.unref();
    this.#socket.on('error', () => read(0));
    const replaced = libc().dup3(fd, reader, O_CLOEXEC);
    const errno = replaced < 0 ? libc().errno() : 0;
    raw.close(writer);
    if (errno !== 0) this.#socket.destroy();
    check(-errno, 'dup3', 'a descriptor cannot be watched by the event loop');
  }

  /** Reads once what is there, or what comes next. */
  resume(): void {
    this.#socket.resume();
  }

  /** Closes the duplicate, at once; idempotent. `read` is not called any more. */
  close(): void {
    this.#socket.removeAllListeners('error').on('error', () => {});
    this.#socket.destroy();
  }
}
