import { FIRST_LPI } from './lpi-store.js';
import type { Address } from './windows.js';

/*
 * The two tables of a redistributor. The configuration table has a byte for each LPI; the pending
 * table a bit for each INTID, of which those below 8192 (its first KiB) are never used by KVM.
 */

/** An LPI's configuration byte: `priority` has its two low bits clear. */
export interface LpiConfiguration {
  readonly enabled: boolean;
  readonly priority: number;
}

/**
 * ```
 *  7        2    1     0
 * | Priority | res1 | Enable |
 * ```
 */
export const decodeConfiguration = (byte: number): LpiConfiguration => ({
  enabled: (byte & 1) === 1,
  priority: byte & 0xfc,
});

/** Inverse of {@link decodeConfiguration}; bit 1 is written as 0. Throws RangeError for a bad priority. */
export function encodeConfiguration({ enabled, priority }: LpiConfiguration): number {
  if (!Number.isInteger(priority) || priority < 0 || priority > 0xff || (priority & 3) !== 0) {
    throw new RangeError(`priority ${priority} is not a multiple of 4 below 256`);
  }
  return priority | (enabled ? 1 : 0);
}

/** Where an LPI's configuration byte is. */
export const configurationAddress = (table: Address, intid: number): Address => table + intid - FIRST_LPI;

/** Where the byte with an INTID's pending bit is; the bit is `intid % 8`. */
export const pendingAddress = (table: Address, intid: number): Address => table + Math.floor(intid / 8);

export const pendingMask = (intid: number): number => 1 << (intid & 7);
