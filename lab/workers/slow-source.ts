import { type PageSource } from 'demand-paging';

export interface SlowSourceOptions {
  readonly image: SharedArrayBuffer;
  /** How long each read takes; any number may be under way. */
  readonly latency_ms: number;
}

/** An image in memory that answers each read after a while, as a network or a disk does. */
export function openSlowSource({ image, latency_ms }: SlowSourceOptions): PageSource {
  const bytes = new Uint8Array(image);
  const copy = (offset: number, into: Uint8Array): number => {
    into.set(bytes.subarray(offset, offset + into.length));
    return into.length;
  };
  return {
    synchronous: latency_ms === 0,
    length: bytes.length,
    read: (offset, into) =>
      latency_ms === 0
        ? copy(offset, into)
        : new Promise((resolve) => setTimeout(() => resolve(copy(offset, into)), latency_ms)),
  };
}
