import { libc } from './ffi.js';
import { DemandPagingError } from '../api/error.js';

const WORD = 0x1_0000_0000;

/**
 * A little zeroed native memory for arguments of system calls: 16-byte aligned, at a fixed address.
 * System call structures are laid out in it by hand; 64-bit fields are two 32-bit words, which
 * costs a fifth of a BigInt store and allocates nothing.
 * Blocks: never. Belongs to the isolate that made it; `free` it, or it lives as long as the process.
 */
export class NativeBlock {
  readonly address: number;
  readonly length: number;
  readonly words: Uint32Array;
  readonly bytes: Uint8Array;
  readonly view: DataView;
  #freed = false;

  constructor(length: number) {
    const rounded = (length + 15) & ~15;
    this.address = libc().calloc(1, rounded);
    if (this.address === 0) throw new DemandPagingError('KERNEL', `no ${rounded} bytes of native memory`);
    const buffer = libc().view(this.address, rounded);
    this.length = rounded;
    this.words = new Uint32Array(buffer);
    this.bytes = new Uint8Array(buffer);
    this.view = new DataView(buffer);
  }

  /** Frees the memory; idempotent. The views must not be used again. */
  free(): void {
    if (this.#freed) return;
    this.#freed = true;
    libc().free(this.address);
  }

  [Symbol.dispose](): void {
    this.free();
  }
}

/** Stores a non-negative integer below 2^53 as 64 bits; `index` counts 32-bit words. Little-endian hosts. */
export function store64(words: Uint32Array, index: number, value: number): void {
  words[index] = value >>> 0;
  words[index + 1] = (value / WORD) >>> 0;
}

/** Loads 64 unsigned bits as a number: exact below 2^53, which every user-space address is. */
export const load64 = (words: Uint32Array, index: number): number => words[index]! + words[index + 1]! * WORD;

/** Loads 64 signed bits as a number: exact within ±2^53. */
export const loadSigned64 = (words: Uint32Array, index: number): number =>
  words[index]! + (words[index + 1]! | 0) * WORD;

/** Loads 64 bits as an unsigned bigint: for masks, whose high bits count. */
export const loadMask = (words: Uint32Array, index: number): bigint =>
  BigInt(words[index]!) | (BigInt(words[index + 1]!) << 32n);

/** Stores an unsigned 64-bit bigint. */
export function storeMask(words: Uint32Array, index: number, value: bigint): void {
  words[index] = Number(value & 0xffff_ffffn);
  words[index + 1] = Number((value >> 32n) & 0xffff_ffffn);
}
