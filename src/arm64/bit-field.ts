const MASK64 = (1n << 64n) - 1n;

/** A run of ones from bit `high` down to bit `low`, both included. */
export const bitMask = (high: number, low: number): bigint =>
  ((1n << BigInt(high - low + 1)) - 1n) << BigInt(low);

/** The field in bits `high`..`low` of `word`, shifted down. */
export const bitField = (word: bigint, high: number, low: number): bigint =>
  (word >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n);

/** Like {@link bitField} for fields of at most 53 bits, as a number. */
export const smallField = (word: bigint, high: number, low: number): number =>
  Number(bitField(word, high, low));

/** `value` placed in bits `high`..`low`. Throws RangeError if it does not fit: no bit is dropped silently. */
export function placeField(value: bigint | number, high: number, low: number): bigint {
  const wide = BigInt(value);
  if (wide < 0n || wide >> BigInt(high - low + 1) !== 0n) {
    throw new RangeError(`${wide} does not fit in bits [${high}:${low}]`);
  }
  return wide << BigInt(low);
}

/** An aligned address placed where the format keeps it: bits `high`..`low` of the address itself. */
export function placeAddress(address: bigint, high: number, low: number): bigint {
  if ((address & ~bitMask(high, low)) !== 0n) {
    throw new RangeError(`address 0x${address.toString(16)} has bits outside [${high}:${low}]`);
  }
  return address;
}

/** Bit `index` of `word`. */
export const bitSet = (word: bigint, index: number): boolean => ((word >> BigInt(index)) & 1n) === 1n;

/** 1 at bit `index` if `set`. */
export const placeBit = (set: boolean, index: number): bigint => (set ? 1n << BigInt(index) : 0n);

/** Cuts a value to 64 bits, as a register does. */
export const word64 = (value: bigint): bigint => value & MASK64;

/**
 * Replaces one half of a 64-bit register, or all of it: `offset` 4 and `size` 4 is the upper half,
 * `offset` 0 and `size` 4 the lower, `size` 8 everything.
 */
export function replaceHalf(register: bigint, offset: number, size: 4 | 8, value: bigint): bigint {
  if (size === 8) return word64(value);
  const low = (offset & 4) * 8;
  return (register & ~bitMask(low + 31, low)) | ((value & 0xffff_ffffn) << BigInt(low));
}
