import { bitField, bitMask } from './bit-field.js';
import { addressBits, count, countMinusOne, flag, wordCodec, type Field } from './word-codec.js';

/*
 * Register offsets and layouts: Arm GIC Architecture Specification (IHI 0069), and what KVM makes of
 * them (Documentation/virt/kvm/devices/arm-vgic-v3.rst, arm-vgic-its.rst). Cacheability and
 * shareability are kept as their raw codes.
 */

/** Offsets within a redistributor's RD_base frame. */
export const GICR = {
  CTLR: 0x0,
  IIDR: 0x4,
  TYPER: 0x8,
  STATUSR: 0x10,
  WAKER: 0x14,
  PROPBASER: 0x70,
  PENDBASER: 0x78,
  INVLPIR: 0xa0,
  INVALLR: 0xb0,
  SYNCR: 0xc0,
} as const;

/** Offsets within the ITS control frame. `BASER0` starts eight registers of 8 bytes. */
export const GITS = {
  CTLR: 0x0,
  IIDR: 0x4,
  TYPER: 0x8,
  CBASER: 0x80,
  CWRITER: 0x88,
  CREADR: 0x90,
  BASER0: 0x100,
  BASER1: 0x108,
  BASER_END: 0x140,
  PIDR4: 0xffd0,
} as const;

/** Offsets within the distributor. */
export const GICD = { CTLR: 0x0, TYPER: 0x4, IIDR: 0x8, TYPER2: 0xc } as const;

/** Cacheability codes of the BASER registers. */
export const CACHE = { nCnB: 0, nC: 1, RaWt: 2, RaWb: 3, WaWt: 4, WaWb: 5, RaWaWt: 6, RaWaWb: 7 } as const;
/** In an outer field, 0 means the same as inner. */
export const SAME_AS_INNER = 0;
/** Shareability codes. */
export const SHARE = { none: 0, inner: 1, outer: 2 } as const;

/**
 * GICR_CTLR, 32 bits.
 * ```
 *  31                         4   3     2    1       0
 * |            res0           | RWP | IR | CES | EnableLPIs |
 * ```
 */
export const gicrCtlr = wordCodec({ enableLpis: flag(0), ces: flag(1), ir: flag(2), rwp: flag(3) });

/**
 * GICR_TYPER. KVM: ProcNum is the vcpu_id, Affinity follows from it, Last marks the last of a region.
 * ```
 *  63      32 31      24 23             8 7   5   4   3  1    0
 * | Affinity |   res0   | ProcNum        | res0 | Last | … | PLPIS |
 * ```
 */
export const gicrTyper = wordCodec({
  physicalLpis: flag(0),
  last: flag(4),
  processorNumber: count(23, 8),
  affinity: count(63, 32),
});

/**
 * GICR_PROPBASER: where the LPI configuration table is. One value for the whole VM under KVM.
 * ```
 *  63  59 58   56 55 52 51          12 11   10 9    7 6 5 4      0
 * | res0 | OuterC | res0 |  PA[51:12]  | Share | InnerC | 0 | IDbits-1 |
 * ```
 */
export const gicrPropbaser = wordCodec({
  idBits: countMinusOne(4, 0),
  innerCache: count(9, 7),
  shareability: count(11, 10),
  address: addressBits(51, 12),
  outerCache: count(58, 56),
});

/**
 * GICR_PENDBASER: where a vCPU's pending table is. PTZ says that it is all zeros; KVM reads PTZ as 0.
 * ```
 *  63   62  61 59 58   56 55 52 51          16 15 12 11   10 9    7 6  0
 * | 0 | PTZ | 0 | OuterC |  0  |  PA[51:16]   |  0  | Share | InnerC | 0 |
 * ```
 */
export const gicrPendbaser = wordCodec({
  innerCache: count(9, 7),
  shareability: count(11, 10),
  address: addressBits(51, 16),
  outerCache: count(58, 56),
  pendingTableZero: flag(62),
});

/**
 * GITS_CTLR, 32 bits.
 * ```
 *   31        30             1    0
 * | Quiescent |     res0     | Enabled |
 * ```
 */
export const gitsCtlr = wordCodec({ enabled: flag(0), quiescent: flag(31) });

/**
 * GITS_IIDR, 32 bits. Under KVM the revision is the version of the table format (0).
 * ```
 *  31     24 23   16 15      12 11          0
 * | Product |  res0 | Revision | Implementer |
 * ```
 */
export const gitsIidr = wordCodec({
  implementer: count(11, 0),
  revision: count(15, 12),
  product: count(31, 24),
});

/**
 * GITS_TYPER, the fields KVM sets.
 * ```
 *  63   20 19  18 17       13 12      8 7         4  3  1    0
 * | ...  | PTA | . | Devbits-1 | IDbits-1 | ITTesz-1 | … | PLPIS |
 * ```
 */
export const gitsTyper = wordCodec({
  physicalLpis: flag(0),
  entry_bytes: countMinusOne(7, 4),
  eventBits: countMinusOne(12, 8),
  deviceBits: countMinusOne(17, 13),
  physicalTargetAddresses: flag(19),
});

/**
 * GITS_CBASER: the command queue. `pages` counts 4 KiB pages.
 * ```
 *  63  62  61   59 58 56 55   53 52 51          12 11   10 9 8 7     0
 * | V | 0 | InnerC |  0  | OuterC | 0 |  PA[51:12]  | Share |  0 | Size-1 |
 * ```
 */
export const gitsCbaser = wordCodec({
  pages: countMinusOne(7, 0),
  shareability: count(11, 10),
  address: addressBits(51, 12),
  outerCache: count(55, 53),
  innerCache: count(61, 59),
  valid: flag(63),
});

/** GITS_CWRITER and GITS_CREADR: an offset into the queue, in steps of 32 bytes. */
export const gitsQueueOffset = wordCodec({ offset: addressBits(19, 5) });

/** PA[51:48] stands in bits [15:12] when pages are 64 KiB, so the address is in two pieces. */
const baserAddress: Field<bigint> = {
  mask: bitMask(47, 12),
  read: (word) => {
    const wide = bitField(word, 9, 8) === 2n;
    return wide ? (word & bitMask(47, 16)) | (bitField(word, 15, 12) << 48n) : word & bitMask(47, 12);
  },
  write: (address) => {
    if (address >> 48n === 0n) {
      if ((address & ~bitMask(47, 12)) !== 0n) throw new RangeError('table address is not 4 KiB aligned');
      return address;
    }
    if ((address & ~bitMask(51, 16)) !== 0n)
      throw new RangeError('a table above 2^48 must be 64 KiB aligned');
    return (address & bitMask(47, 16)) | ((address >> 48n) << 12n);
  },
};

/** GITS_BASER<n>.Type of the two tables KVM has. */
export const TABLE_TYPE = { device: 1, collection: 4 } as const;

/**
 * GITS_BASER<n>. `pageSize` 0, 1, 2 is 4, 16, 64 KiB; KVM forces 2, so `pages` counts 64 KiB pages.
 * ```
 *  63     62       61   59 58  56 55   53 52     48 47        12 11   10 9      8 7      0
 * | V | Indirect | InnerC | Type | OuterC | esz-1  |  PA[47:12] | Share | PageSz | Pages-1 |
 * ```
 */
export const gitsBaser = wordCodec({
  pages: countMinusOne(7, 0),
  pageSize: count(9, 8),
  shareability: count(11, 10),
  address: baserAddress,
  entry_bytes: countMinusOne(52, 48),
  outerCache: count(55, 53),
  type: count(58, 56),
  innerCache: count(61, 59),
  indirect: flag(62),
  valid: flag(63),
});
