import { ERRNO, systemError } from './failure.js';
import { load64, loadMask, loadSigned64, NativeBlock, store64 } from './native-block.js';
import * as raw from './raw.js';
import { type UffdArrivals } from './userfaultfd-arrivals.js';
import { UFFD_MSG_BYTES, UFFDIO } from './userfaultfd-abi.js';
import { decodeUffdEvent, UFFD_MSG_WORDS, type UffdEvent } from './userfaultfd-event.js';

const ARGUMENT_BYTES = 48; // the longest argument is 40

/**
 * The raw verbs of one userfaultfd for one isolate: numbers in, 0 or `-errno` out, no exception and
 * no allocation. It does not own the descriptor: several isolates may each have a port on it.
 *
 * After each verb {@link done} says how many bytes were resolved. It is what counts, not the errno:
 * -EAGAIN (11) with `done` > 0 is a partial success, and with 0 means that an event waits to be read
 * first. The kernel's answer field is signed (-11 there is EAGAIN, not a huge length), and older
 * kernels leave it unwritten; both come out as `done` = 0.
 *
 * -EEXIST: the page is mapped already and *no waiter was woken*: {@link wake} the range.
 * -ENOENT: the range is no longer registered or mapped. -ESRCH: the process is gone.
 * -EFAULT: the source, or for CONTINUE the page cache, has no page. -EBUSY of MOVE: a pinned source.
 *
 * Blocks: a verb waits at most for the kernel's own locks; {@link read} waits when the descriptor is
 * blocking. Never touch a range from the thread that serves it.
 */
export class UffdPort {
  readonly fd: number;
  /** Bytes resolved by the last verb. */
  done = 0;
  /** Most messages that one {@link read} takes. */
  readonly batch: number;
  /** The messages of the last {@link read}, as 32-bit words, 8 each. */
  readonly messages: Uint32Array;
  readonly #argument = new NativeBlock(ARGUMENT_BYTES);
  readonly #words = this.#argument.words;
  readonly #inbox: NativeBlock;
  readonly #arrivals: UffdArrivals | undefined;
  #closed = false;
  #ioctls = 0n;
  #features = 0n;

  /** `batch`: most messages per read, default 64 (2 KiB). `arrivals`: what the event loop has read before. */
  constructor(fd: number, batch = 64, arrivals?: UffdArrivals) {
    this.fd = fd;
    this.batch = batch;
    this.#arrivals = arrivals;
    this.#inbox = new NativeBlock(batch * UFFD_MSG_BYTES);
    this.messages = this.#inbox.words;
  }

  /**
   * UFFDIO_COPY: `length` bytes from `source` (in this process) to `target`. Modes: {@link UFFD_COPY_MODE}.
   */
  copy(target: number, source: number, length: number, mode = 0): number {
    return this.#fromTo(UFFDIO.COPY, target, source, length, mode);
  }

  /**
   * UFFDIO_MOVE: takes the pages at `source` out of there. Private anonymous memory. Modes: {@link
   * UFFD_MOVE_MODE}.
   */
  move(target: number, source: number, length: number, mode = 0): number {
    return this.#fromTo(UFFDIO.MOVE, target, source, length, mode);
  }

  /** UFFDIO_ZEROPAGE. Not for hugetlb. Modes: {@link UFFD_ZEROPAGE_MODE}. */
  zeropage(start: number, length: number, mode = 0): number {
    return this.#range(UFFDIO.ZEROPAGE, start, length, mode);
  }

  /** UFFDIO_CONTINUE: maps what the page cache has. Modes: {@link UFFD_CONTINUE_MODE}. */
  continue(start: number, length: number, mode = 0): number {
    return this.#range(UFFDIO.CONTINUE, start, length, mode);
  }

  /**
   * UFFDIO_POISON: later accesses get SIGBUS, in-kernel ones EHWPOISON or EFAULT. Modes: {@link
   * UFFD_POISON_MODE}.
   */
  poison(start: number, length: number, mode = 0): number {
    return this.#range(UFFDIO.POISON, start, length, mode);
  }

  /** UFFDIO_WRITEPROTECT. Modes, in their own order: {@link UFFD_WRITEPROTECT_MODE}. */
  writeprotect(start: number, length: number, mode: number): number {
    return this.#whole(UFFDIO.WRITEPROTECT, start, length, mode);
  }

  /** UFFDIO_RWPROTECT, Linux 7.3. Modes, in their own order: {@link UFFD_RWPROTECT_MODE}. */
  rwprotect(start: number, length: number, mode: number): number {
    return this.#whole(UFFDIO.RWPROTECT, start, length, mode);
  }

  /** UFFDIO_WAKE: lets every waiter in the range look again. */
  wake(start: number, length: number): number {
    return this.#whole(UFFDIO.WAKE, start, length, 0);
  }

  /** UFFDIO_UNREGISTER; waiters in the range are woken. */
  unregister(start: number, length: number): number {
    return this.#whole(UFFDIO.UNREGISTER, start, length, 0);
  }

  /** UFFDIO_REGISTER; the ioctls that work on that range are in {@link ioctls} then. */
  register(start: number, length: number, mode: number): number {
    this.done = 0;
    if (this.#closed) return -ERRNO.EBADF;
    const words = this.#words;
    store64(words, 0, start);
    store64(words, 2, length);
    store64(words, 4, mode);
    store64(words, 6, 0);
    const result = this.#ioctl(UFFDIO.REGISTER);
    if (result === 0) this.#ioctls = loadMask(words, 6);
    return result;
  }

  /** UFFDIO_API. The answer is in {@link features} and {@link ioctls}. */
  handshake(api: number, features: number): number {
    if (this.#closed) return -ERRNO.EBADF;
    const words = this.#words;
    store64(words, 0, api);
    store64(words, 2, features);
    store64(words, 4, 0);
    const result = this.#ioctl(UFFDIO.API);
    if (result === 0) {
      this.#features = loadMask(words, 2);
      this.#ioctls = loadMask(words, 4);
    }
    return result;
  }

  /** The features that the last successful {@link handshake} answered: all that the kernel has. */
  get features(): bigint {
    return this.#features;
  }

  /** The ioctls that the last successful {@link handshake} or {@link register} answered. */
  get ioctls(): bigint {
    return this.#ioctls;
  }

  /** UFFDIO_SET_MODE, Linux 7.3: switches RWP_ASYNC and its like while faults are in flight. */
  setMode(enable: number, disable: number): number {
    if (this.#closed) return -ERRNO.EBADF;
    store64(this.#words, 0, enable);
    store64(this.#words, 2, disable);
    return this.#ioctl(UFFDIO.SET_MODE);
  }

  /**
   * Takes up to `most` messages, at most {@link batch}: how many, or `-errno` (-EAGAIN: none, on a
   * non-blocking descriptor). Decode them with {@link event} or read {@link messages} word by word.
   */
  read(most = this.batch): number {
    if (this.#closed) return -ERRNO.EBADF;
    const room = Math.min(most, this.batch);
    const before = this.#arrivals?.pending ? this.#arrivals.take(this.messages, room) : 0;
    if (before === room) return before;
    const at = this.#inbox.address + before * UFFD_MSG_BYTES;
    const bytes = raw.read(this.fd, at, (room - before) * UFFD_MSG_BYTES);
    if (bytes < 0) return before > 0 ? before : bytes;
    return before + bytes / UFFD_MSG_BYTES;
  }

  /**
   * As {@link read}, but returns 0 when there is none. Errors: CLOSED (EBADF), KERNEL with errno.
   */
  receive(most = this.batch): number {
    const count = this.read(most);
    if (count >= 0) return count;
    if (count === -ERRNO.EAGAIN || count === -ERRNO.EINTR) return 0;
    throw systemError('read', -count, 'the userfaultfd cannot be read', {
      codes: { [ERRNO.EBADF]: 'CLOSED' },
    });
  }

  /** Message `index` of the last {@link read}. Errors: UNKNOWN_EVENT. */
  event(index: number): UffdEvent {
    return decodeUffdEvent(this.messages, index);
  }

  /** The event number of message `index` ({@link UFFD_EVENT}), without allocating. */
  eventNumber(index: number): number {
    return this.messages[index * UFFD_MSG_WORDS]! & 0xff;
  }

  /** For a page fault: its flags ({@link UFFD_PAGEFAULT_FLAG}). */
  faultFlags(index: number): number {
    return this.messages[index * UFFD_MSG_WORDS + 2]!;
  }

  /** For a page fault: its address. */
  faultAddress(index: number): number {
    return load64(this.messages, index * UFFD_MSG_WORDS + 4);
  }

  /** For a page fault: the thread that waits, where THREAD_ID was negotiated. */
  faultThread(index: number): number {
    return this.messages[index * UFFD_MSG_WORDS + 6]!;
  }

  /** Frees the buffers, not the descriptor; idempotent. Verbs return -EBADF afterwards. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#argument.free();
    this.#inbox.free();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  #ioctl(request: number): number {
    return raw.ioctl(this.fd, request, this.#argument.address);
  }

  /** Verbs that answer at word 8: {to, from, len, mode, s64 done}. */
  #fromTo(request: number, target: number, source: number, length: number, mode: number): number {
    if (this.#closed) return this.#refuse();
    const words = this.#words;
    store64(words, 0, target);
    store64(words, 2, source);
    store64(words, 4, length);
    words[6] = mode;
    words[7] = 0;
    words[8] = 0;
    words[9] = 0;
    const result = this.#ioctl(request);
    this.done = Math.max(0, loadSigned64(words, 8));
    return result;
  }

  /** Verbs that answer at word 6: {start, len, mode, s64 done}. */
  #range(request: number, start: number, length: number, mode: number): number {
    if (this.#closed) return this.#refuse();
    const words = this.#words;
    store64(words, 0, start);
    store64(words, 2, length);
    words[4] = mode;
    words[5] = 0;
    words[6] = 0;
    words[7] = 0;
    const result = this.#ioctl(request);
    this.done = Math.max(0, loadSigned64(words, 6));
    return result;
  }

  /** Verbs that do all or nothing: {start, len, mode}. */
  #whole(request: number, start: number, length: number, mode: number): number {
    if (this.#closed) return this.#refuse();
    const words = this.#words;
    store64(words, 0, start);
    store64(words, 2, length);
    words[4] = mode;
    words[5] = 0;
    const result = this.#ioctl(request);
    this.done = result < 0 ? 0 : length;
    return result;
  }

  #refuse(): number {
    this.done = 0;
    return -ERRNO.EBADF; // the freed buffer must not be written
  }
}

/** Refuses bits outside a mask. Errors: RangeError. */
export function checkBits(what: string, value: number, mask: number): void {
  if (!Number.isInteger(value) || value < 0 || (value & ~mask) !== 0) {
    throw new RangeError(`${what} 0x${value.toString(16)} has bits outside 0x${mask.toString(16)}`);
  }
}
