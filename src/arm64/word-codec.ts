import { bitField, bitMask, bitSet, placeAddress, placeBit, placeField, smallField } from './bit-field.js';

/** One field of a 64-bit word: where it is and how it reads. */
export interface Field<T> {
  readonly mask: bigint;
  read(word: bigint): T;
  /** The bits of the field; throws RangeError if the value does not fit. */
  write(value: T): bigint;
}

type Fields = Record<string, Field<never> | Field<boolean> | Field<number> | Field<bigint>>;
type ValueOf<F> = F extends Field<infer T> ? T : never;

/** What a word with these fields decodes to. */
export type Decoded<F extends Fields> = { readonly [K in keyof F]: ValueOf<F[K]> };

/** A typed reading of a 64-bit word. `encode(decode(w))` is `w` cut to `mask`, for every `w`. */
export interface WordCodec<F extends Fields> {
  /** Every bit that some field holds; the others are reserved: ignored on decode, zero on encode. */
  readonly mask: bigint;
  decode(word: bigint): Decoded<F>;
  /** Throws RangeError if a value does not fit its field. */
  encode(value: Decoded<F>): bigint;
}

/** A single bit. */
export const flag = (bit: number): Field<boolean> => ({
  mask: bitMask(bit, bit),
  read: (word) => bitSet(word, bit),
  write: (value) => placeBit(value, bit),
});

/** A field of up to 53 bits, as a number. */
export const count = (high: number, low: number): Field<number> => ({
  mask: bitMask(high, low),
  read: (word) => smallField(word, high, low),
  write: (value) => placeField(value, high, low),
});

/** Like {@link count}, for a field that holds its value minus one. */
export const countMinusOne = (high: number, low: number): Field<number> => ({
  mask: bitMask(high, low),
  read: (word) => smallField(word, high, low) + 1,
  write: (value) => placeField(value - 1, high, low),
});

/** An address whose bits `high`..`low` stand at their own place in the word. */
export const addressBits = (high: number, low: number): Field<bigint> => ({
  mask: bitMask(high, low),
  read: (word) => word & bitMask(high, low),
  write: (value) => placeAddress(value, high, low),
});

/** An address stored shifted: its bits from `unit` up are in bits `high`..`low` of the word. */
export const shiftedAddress = (high: number, low: number, unit: number): Field<bigint> => ({
  mask: bitMask(high, low),
  read: (word) => bitField(word, high, low) << BigInt(unit),
  write: (value) => {
    placeAddress(value, unit + high - low, unit);
    return placeField(value >> BigInt(unit), high, low);
  },
});

/** Builds the codec of a word from its fields, which must not overlap. */
export function wordCodec<F extends Fields>(fields: F): WordCodec<F> {
  const entries = Object.entries(fields) as [string, Field<unknown>][];
  let mask = 0n;
  for (const [name, field] of entries) {
    if ((mask & field.mask) !== 0n) throw new RangeError(`field ${name} overlaps another`);
    mask |= field.mask;
  }
  return {
    mask,
    decode: (word) =>
      Object.fromEntries(entries.map(([name, field]) => [name, field.read(word)])) as Decoded<F>,
    encode: (value) =>
      entries.reduce((word, [name, field]) => word | field.write(value[name as keyof F]), 0n),
  };
}
