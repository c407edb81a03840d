import { DemandPagingError } from '../api/error.js';
import { libc } from './ffi.js';
import { check, ERRNO } from './failure.js';
import { NativeBlock, load64, store64 } from './native-block.js';
import * as raw from './raw.js';

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 0x8;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x4000_0000;
const PATH_LIMIT = 107; // sun_path holds 108 with its terminator

/** Most descriptors in one message, SCM_MAX_FD of the kernel. */
const FD_LIMIT = 253;

// struct msghdr: name @0, namelen @8, iov @16, iovlen @24, control @32, controllen @40, flags @48.
// struct cmsghdr: len @0, level @8, type @12, descriptors from 16; struct iovec: base @0, len @8.
const MSGHDR = 56;
const IOVEC = 16;
const CMSG_HEADER = 16;

const settle = (result: number, syscall: string, message: string): number =>
  check(result === -1 ? -libc().errno() : result, syscall, message);

/** A connected pair of stream sockets, close-on-exec. Errors: KERNEL (EMFILE). */
export function socketPair(): [number, number] {
  using pair = new NativeBlock(8);
  const made = libc().socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair.address);
  settle(made, 'socketpair', 'cannot make a pair of sockets');
  return [pair.words[0]!, pair.words[1]!];
}

function withAddress<T>(path: string, body: (address: number, length: number) => T): T {
  const bytes = Buffer.from(path);
  if (bytes.length === 0 || bytes.length > PATH_LIMIT) {
    throw new RangeError(`a socket path has 1 to ${PATH_LIMIT} bytes, this one ${bytes.length}`);
  }
  using block = new NativeBlock(112);
  block.view.setUint16(0, AF_UNIX, true);
  block.bytes.set(bytes, 2);
  return body(block.address, 2 + bytes.length + 1);
}

function streamSocket(): number {
  return settle(libc().socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), 'socket', 'cannot make a socket');
}

/**
 * A listening socket at `path`, which must not exist. The caller removes the path.
 * Errors: KERNEL (EADDRINUSE 98), NO_PERMISSION. Source: unix(7).
 */
export function listenAt(path: string, backlog = 16): number {
  const fd = streamSocket();
  try {
    withAddress(path, (address, length) =>
      settle(libc().bind(fd, address, length), 'bind', `cannot bind ${path}`),
    );
    settle(libc().listen(fd, backlog), 'listen', `cannot listen at ${path}`);
    return fd;
  } catch (error) {
    raw.close(fd);
    throw error;
  }
}

/** A socket connected to `path`. Errors: NO_DEVICE (ENOENT), KERNEL (ECONNREFUSED 111), NO_PERMISSION. */
export function connectTo(path: string): number {
  const fd = streamSocket();
  try {
    withAddress(path, (address, length) => {
      const result = libc().connect(fd, address, length);
      const context = { codes: { [ERRNO.ENOENT]: 'NO_DEVICE' } } as const;
      check(result === -1 ? -libc().errno() : result, 'connect', `cannot connect to ${path}`, context);
    });
    return fd;
  } catch (error) {
    raw.close(fd);
    throw error;
  }
}

/**
 * The next connection of a listening socket, close-on-exec. Blocks this thread until there is one; poll
 * first.
 */
export const acceptFrom = (listener: number): number =>
  settle(libc().accept4(listener, 0, 0, SOCK_CLOEXEC), 'accept4', 'cannot accept a connection');

export interface PeerCredentials {
  readonly pid: number;
  readonly uid: number;
  readonly gid: number;
}

/** Who connected, as the kernel knows it: the pid is that of the peer when it connected. Source: unix(7). */
export function peerCredentials(fd: number): PeerCredentials {
  using block = new NativeBlock(16);
  block.words[3] = 12; // the length, behind the 12 bytes of struct ucred
  const result = libc().getsockopt(fd, SOL_SOCKET, SO_PEERCRED, block.address, block.address + 12);
  settle(result, 'getsockopt', 'cannot read the credentials of the peer');
  return { pid: block.words[0]! | 0, uid: block.words[1]!, gid: block.words[2]! };
}

/**
 * Sends bytes and descriptors in one message. The descriptors stay open here. At least one byte must
 * go with them, or a stream socket drops them.
 * Returns the bytes sent (the descriptors go with the first). Blocks while the peer's buffer is full,
 * on a blocking socket. Errors: KERNEL (EPIPE 32: the peer closed; EAGAIN 11; EBADF).
 * Source: sendmsg(2), cmsg(3), unix(7).
 */
export function sendWithDescriptors(socket: number, bytes: Uint8Array, fds: readonly number[]): number {
  if (bytes.length === 0) throw new RangeError('descriptors need at least one byte to go with');
  if (fds.length > FD_LIMIT) throw new RangeError(`${fds.length} descriptors; a message carries ${FD_LIMIT}`);
  using message = new Message(bytes.length, fds.length);
  message.payload.set(bytes);
  message.setDescriptors(fds);
  return settle(libc().sendmsg(socket, message.address, MSG_NOSIGNAL), 'sendmsg', 'cannot send descriptors');
}

export interface Received {
  /** Empty when the peer closed. */
  readonly bytes: Uint8Array;
  /** Open here now, close-on-exec, owned by the caller. */
  readonly fds: readonly number[];
}

/**
 * Receives one message: up to `limit` bytes and the descriptors that came with them.
 * Blocks until something comes, on a blocking socket. More than `most` descriptors: all are closed
 * and KERNEL is thrown, because a lost one cannot be asked for again.
 * Errors: KERNEL (EAGAIN 11 on a non-blocking socket; ECONNRESET). Source: recvmsg(2), unix(7).
 */
export function receiveWithDescriptors(socket: number, limit = 65536, most = 16): Received {
  using message = new Message(limit, most);
  const length = settle(
    libc().recvmsg(socket, message.address, MSG_CMSG_CLOEXEC),
    'recvmsg',
    'cannot receive descriptors',
  );
  const fds = message.descriptors();
  if (message.flags & MSG_CTRUNC) {
    for (const fd of fds) raw.close(fd);
    throw new DemandPagingError('KERNEL', `a message brought more than ${most} descriptors`, {
      syscall: 'recvmsg',
    });
  }
  return { bytes: message.payload.slice(0, length), fds };
}

/** A msghdr with one iovec, room for descriptors, and the payload, in one block. */
class Message {
  readonly #block: NativeBlock;
  readonly #control: number;
  readonly #controlLength: number;
  readonly payload: Uint8Array;

  constructor(bytes: number, fds: number) {
    this.#control = MSGHDR + IOVEC;
    // Not padded: the kernel would make use of the padding for one descriptor more.
    this.#controlLength = CMSG_HEADER + fds * 4;
    const payloadAt = this.#control + ((this.#controlLength + 7) & ~7);
    this.#block = new NativeBlock(payloadAt + bytes);
    this.payload = this.#block.bytes.subarray(payloadAt, payloadAt + bytes);
    const { address, words } = this.#block;
    store64(words, 16 / 4, address + MSGHDR);
    store64(words, 24 / 4, 1);
    store64(words, MSGHDR / 4, address + payloadAt);
    store64(words, MSGHDR / 4 + 2, bytes);
    if (fds > 0) {
      store64(words, 32 / 4, address + this.#control);
      store64(words, 40 / 4, this.#controlLength);
    }
  }

  get address(): number {
    return this.#block.address;
  }

  get flags(): number {
    return this.#block.view.getInt32(48, true);
  }

  setDescriptors(fds: readonly number[]): void {
    const { words, view } = this.#block;
    if (fds.length === 0) return;
    store64(words, this.#control / 4, CMSG_HEADER + fds.length * 4);
    words[this.#control / 4 + 2] = SOL_SOCKET;
    words[this.#control / 4 + 3] = SCM_RIGHTS;
    fds.forEach((fd, index) => view.setInt32(this.#control + CMSG_HEADER + index * 4, fd, true));
  }

  /** The descriptors of every SCM_RIGHTS header in the control data. */
  descriptors(): number[] {
    const { words, view } = this.#block;
    const end = this.#control + load64(words, 40 / 4);
    const fds: number[] = [];
    for (let at = this.#control; at + CMSG_HEADER <= end;) {
      const length = load64(words, at / 4);
      if (length < CMSG_HEADER) break;
      if (words[at / 4 + 2] === SOL_SOCKET && words[at / 4 + 3] === SCM_RIGHTS) {
        for (let fd = at + CMSG_HEADER; fd < at + length; fd += 4) fds.push(view.getInt32(fd, true));
      }
      at += (length + 7) & ~7;
    }
    return fds;
  }

  [Symbol.dispose](): void {
    this.#block.free();
  }
}
