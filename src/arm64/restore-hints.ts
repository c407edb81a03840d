import { type Gpa, type GpaRange, type Program, hint } from '../api/index.js';
import { blockAddress } from './table-address.js';
import { deviceEntry, ENTRY_BYTES, ID_BITS, TABLE_PAGE_BYTES } from './table-entries.js';
import { type Window } from './windows.js';

/*
 * What a restore may read next, told when a page that names it arrives. Hints are guesses: an error
 * or a last entry ends the walk before it gets there. They never leave the extents of the tables.
 */

const range = (start: number, bytes: number): GpaRange => ({
  start: BigInt(start) as Gpa,
  length: BigInt(bytes),
});

/** The level-2 blocks that a window of level-1 entries names, from `offset` on. */
export function* announceBlocks(window: Window, offset: number): Program<void> {
  const ranges: GpaRange[] = [];
  for (let at = offset; at < window.bytes.length; at += ENTRY_BYTES) {
    const high = window.view.getUint32(at + 4, true);
    if (high >>> 31 === 0) continue;
    ranges.push(range(blockAddress(window.view.getUint32(at, true), high), TABLE_PAGE_BYTES));
  }
  if (ranges.length > 0) yield* hint('device-table', ranges);
}

/** The translation tables of the device entries in a window, from `offset` along their `next`. */
export function* announceTranslationTables(window: Window, offset: number): Program<void> {
  const ranges: GpaRange[] = [];
  for (let at = offset; at < window.bytes.length;) {
    const high = window.view.getUint32(at + 4, true);
    let step = 1;
    if (high >>> 31 === 1) {
      const { next, itt, eventBits } = deviceEntry(window.view.getUint32(at, true), high);
      if (eventBits > ID_BITS) break;
      ranges.push(range(itt, 2 ** eventBits * ENTRY_BYTES));
      if (next === 0) break;
      step = next;
    }
    at += step * ENTRY_BYTES;
  }
  if (ranges.length > 0) yield* hint('translation-table', ranges);
}
