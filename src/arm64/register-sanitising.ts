import { bitField, bitMask, placeField } from './bit-field.js';
import { CACHE, SAME_AS_INNER, SHARE, TABLE_TYPE } from './registers.js';

/*
 * What KVM turns a written value into before it stores it. Every function is total: any 64-bit value
 * is accepted, and sanitising twice changes nothing more.
 */

/** Bits written in a BASER field `high`..`low`. */
function replaceField(word: bigint, high: number, low: number, by: (code: number) => number): bigint {
  const code = by(Number(bitField(word, high, low)));
  return (word & ~bitMask(high, low)) | placeField(code, high, low);
}

/** Outer shareable becomes inner shareable. */
const shareability = (code: number): number => (code === SHARE.outer ? SHARE.inner : code);

/** Inner non-cacheable becomes read-allocate write-back. */
const innerCache = (code: number): number => (code === CACHE.nCnB || code === CACHE.nC ? CACHE.RaWb : code);

/** Outer stays only if it is "same as inner" or non-cacheable. */
const outerCache = (code: number): number => (code === CACHE.nC ? code : SAME_AS_INNER);

function sanitiseRedistributorBase(word: bigint, reserved: bigint): bigint {
  let clean = replaceField(word, 11, 10, shareability);
  clean = replaceField(clean, 9, 7, innerCache);
  return replaceField(clean, 58, 56, outerCache) & ~reserved;
}

function sanitiseItsBase(word: bigint): bigint {
  let clean = replaceField(word, 11, 10, shareability);
  clean = replaceField(clean, 61, 59, innerCache);
  return replaceField(clean, 55, 53, outerCache);
}

/** GICR_PROPBASER as KVM stores it. */
export const sanitisePropbaser = (word: bigint): bigint =>
  sanitiseRedistributorBase(word, bitMask(63, 59) | bitMask(55, 52) | bitMask(6, 5));

/** GICR_PENDBASER as KVM stores it; PTZ is kept and read back as 0. */
export const sanitisePendbaser = (word: bigint): bigint =>
  sanitiseRedistributorBase(
    word,
    bitMask(63, 63) | bitMask(61, 59) | bitMask(55, 52) | bitMask(15, 12) | bitMask(6, 0),
  );

/** GITS_CBASER as KVM stores it: the queue is 64 KiB aligned. */
export const sanitiseCbaser = (word: bigint): bigint => sanitiseItsBase(word) & ~bitMask(15, 12);

/**
 * GITS_BASER<n> as KVM stores it: entry size and type are its own, pages are 64 KiB, and the
 * collection table is never indirect.
 */
export function sanitiseBaser(word: bigint, table: keyof typeof TABLE_TYPE): bigint {
  let clean = word & ~(bitMask(52, 48) | bitMask(58, 56) | bitMask(9, 8));
  if (table === 'collection') clean &= ~bitMask(62, 62);
  clean |= placeField(7, 52, 48) | placeField(TABLE_TYPE[table], 58, 56) | placeField(2, 9, 8);
  return sanitiseItsBase(clean);
}
