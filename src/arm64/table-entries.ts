import { addressBits, count, countMinusOne, flag, shiftedAddress, wordCodec } from './word-codec.js';

/*
 * Table format revision 0: every entry is one little-endian 64-bit word
 * (Documentation/virt/kvm/devices/arm-vgic-its.rst, "ITS Table ABI REV0").
 */

/** Bytes of every entry. */
export const ENTRY_BYTES = 8;
/** Bytes of a page of an ITS table, and of a level-2 block. */
export const TABLE_PAGE_BYTES = 65536;
/** Entries of a level-2 block. */
export const LEVEL2_ENTRIES = TABLE_PAGE_BYTES / ENTRY_BYTES;
/** The largest distance a DTE's `next` holds; a longer one is followed by scanning on from there. */
export const DTE_NEXT_MAX = 2 ** 14 - 1;
/** The same for an ITE. */
export const ITE_NEXT_MAX = 2 ** 16 - 1;
/** DeviceID, EventID and ICID have 16 bits under KVM. */
export const ID_BITS = 16;

/**
 * Device table entry, indexed by DeviceID. `next` is the distance to the next valid entry, 0 in the last.
 * ```
 *  63  62      49 48                5 4          0
 * | V |   next   |    ITT PA[51:8]   | eventBits-1 |
 * ```
 */
export const dte = wordCodec({
  eventBits: countMinusOne(4, 0),
  itt: shiftedAddress(48, 5, 8),
  next: count(62, 49),
  valid: flag(63),
});

/**
 * Collection table entry: a list, not indexed; it ends with the first entry that is not valid.
 * `target` is a vcpu_id, or 0xffffffff.
 * ```
 *  63  62  52 51  48 47          16 15       0
 * | V | res0  |  0   |    RDBase    |   ICID  |
 * ```
 */
export const cte = wordCodec({ collection: count(15, 0), target: count(47, 16), valid: flag(63) });

/**
 * Interrupt translation table entry, indexed by EventID. An INTID of 0 means not valid.
 * ```
 *  63        48 47          16 15       0
 * |    next    |     INTID    |   ICID  |
 * ```
 */
export const ite = wordCodec({ collection: count(15, 0), intid: count(47, 16), next: count(63, 48) });

/**
 * Level-1 entry of a two-level device table.
 * ```
 *  63  62  52 51                       16 15   0
 * | V |  res0 |  PA[51:16] of a block    |  res0 |
 * ```
 */
export const level1 = wordCodec({ address: addressBits(51, 16), valid: flag(63) });

/*
 * The same layouts on two 32-bit halves: tables of a million entries are read and written this way,
 * because a bigint for each entry would cost more than everything else.
 */

/** A device table entry from its halves; only for a valid one. */
export const deviceEntry = (low: number, high: number): { next: number; itt: number; eventBits: number } => ({
  next: (high >>> 17) & 0x3fff,
  itt: ((high & 0x1_ffff) * 2 ** 27 + (low >>> 5)) * 256,
  eventBits: (low & 0x1f) + 1,
});

/** A 64-bit word as `[low, high]`, unsigned. */
export type Halves = readonly [number, number];

/** Halves of a valid device table entry. */
export function deviceHalves(eventBits: number, itt: number, next: number): Halves {
  const unit = Math.floor(itt / 256);
  const low = (unit % 2 ** 27) * 32 + (eventBits - 1);
  return [low, 2 ** 31 + next * 2 ** 17 + Math.floor(unit / 2 ** 27)];
}

/** Halves of an interrupt translation table entry. */
export const interruptHalves = (collection: number, intid: number, next: number): Halves => [
  (intid % 65536) * 65536 + collection,
  next * 65536 + Math.floor(intid / 65536),
];

/** Halves of a valid collection table entry. */
export const collectionHalves = (collection: number, target: number): Halves => [
  (target % 65536) * 65536 + collection,
  2 ** 31 + Math.floor(target / 65536),
];
