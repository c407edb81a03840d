import { libc } from './ffi.js';
import { load64, NativeBlock, store64 } from './native-block.js';

/**
 * Plain loads and stores at an address, done inside the C library: a missing page of a registered
 * range blocks this thread until it is resolved; an unmapped, poisoned or SIGBUS-mode page kills the
 * process. Where the access may fail use {@link readMemory}.
 */
let cell: NativeBlock | undefined;
const scratch = (): NativeBlock => (cell ??= new NativeBlock(16));

/** memcpy(3): the ranges must not overlap. */
export const copyMemory = (to: number, from: number, length: number): void => libc().memcpy(to, from, length);

/** memset(3). */
export const fillMemory = (address: number, byte: number, length: number): void =>
  libc().memset(address, byte, length);

/** The byte at `address`. */
export function load8(address: number): number {
  const into = scratch();
  libc().memcpy(into.address, address, 1);
  return into.bytes[0]!;
}

/** The 64-bit word at `address`, exact below 2^53 (higher bits round). */
export function loadWord(address: number): number {
  const into = scratch();
  libc().memcpy(into.address, address, 8);
  return load64(into.words, 0);
}

/** Stores one byte. */
export function store8(address: number, value: number): void {
  libc().memset(address, value, 1);
}

/** Stores 64 bits from a non-negative integer below 2^53. */
export function storeWord(address: number, value: number): void {
  const from = scratch();
  store64(from.words, 0, value);
  libc().memcpy(address, from.address, 8);
}
