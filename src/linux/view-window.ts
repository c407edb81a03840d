import { libc } from './ffi.js';

/** Longest window, in bytes. koffi refuses to view more than 4 GiB at once (it ends the process). */
export const WINDOW_LIMIT = 0x4000_0000;

/**
 * Byte windows over one stretch of mapped memory, cut from few large ArrayBuffers so that a window
 * costs no native call, and so that all of them can be made harmless at once: {@link detach}
 * empties every buffer, and a window kept too long reads as empty instead of crashing the process.
 */
export class ViewWindow {
  readonly #buffers = new Map<number, ArrayBuffer>();
  readonly #address: number;
  readonly #length: number;

  constructor(address: number, length: number) {
    this.#address = address;
    this.#length = length;
  }

  bytes(offset: number, length: number): Uint8Array {
    const buffer = this.buffer(offset);
    return new Uint8Array(buffer, offset % WINDOW_LIMIT, length);
  }

  /** The buffer whose byte `offset % WINDOW_LIMIT` is `offset`; it reaches at least WINDOW_LIMIT further. */
  buffer(offset: number): ArrayBuffer {
    const chunk = Math.floor(offset / WINDOW_LIMIT);
    let buffer = this.#buffers.get(chunk);
    if (!buffer) {
      const start = chunk * WINDOW_LIMIT;
      buffer = libc().view(this.#address + start, Math.min(2 * WINDOW_LIMIT, this.#length - start));
      this.#buffers.set(chunk, buffer);
    }
    return buffer;
  }

  /** Empties every buffer handed out. False where this runtime cannot: then old windows dangle. */
  detach(): boolean {
    let all = true;
    for (const buffer of this.#buffers.values()) all = detachBuffer(buffer) && all;
    this.#buffers.clear();
    return all;
  }
}

/**
 * Detaches a buffer over native memory. Node marks such buffers untransferable, so structuredClone
 * copies them; a readable byte stream transfers what is enqueued all the same, as its standard says,
 * and so does ArrayBuffer.prototype.transfer where there is one (Node 22).
 */
function detachBuffer(buffer: ArrayBuffer): boolean {
  try {
    const transferable = buffer as ArrayBuffer & { transfer?: () => ArrayBuffer };
    if (transferable.transfer) transferable.transfer();
    else {
      const start = (controller: ReadableByteStreamController): void =>
        controller.enqueue(new Uint8Array(buffer, 0, 1));
      new ReadableStream({ type: 'bytes', start });
    }
  } catch {
    return false;
  }
  return buffer.byteLength === 0;
}
