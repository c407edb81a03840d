import { type Program } from '../api/index.js';
import type { TableExtent } from './its.js';
import { mayRead, type Run } from './run.js';
import { ENTRY_BYTES, LEVEL2_ENTRIES } from './table-entries.js';
import { type Address, windowStart } from './windows.js';

/** The entry of an id does not exist or is outside the memslots. */
export const UNREACHABLE = -1;

const MAX_ID = 0xffff;

/**
 * Where the entry of `id` is in an ITS table, if the table is large enough, its level-1 entry is
 * there and valid, and the place is in a memslot; else {@link UNREACHABLE}. A level-1 entry that
 * cannot be read counts as not there.
 */
export function* entryAddress(run: Run, table: TableExtent, id: number): Program<Address> {
  if (id > MAX_ID) return UNREACHABLE;
  let address = table.start + id * ENTRY_BYTES;
  if (table.indirect) {
    const index = Math.floor(id / LEVEL2_ENTRIES);
    if (index >= table.bytes / ENTRY_BYTES) return UNREACHABLE;
    const at = table.start + index * ENTRY_BYTES;
    const window = run.windows.known(at) ?? (yield* readLevel1(run, at));
    if (typeof window === 'number') return UNREACHABLE;
    const high = window.view.getUint32(at - window.start + 4, true);
    if (high >>> 31 === 0) return UNREACHABLE;
    const low = window.view.getUint32(at - window.start, true);
    address = blockAddress(low, high) + (id % LEVEL2_ENTRIES) * ENTRY_BYTES;
  } else if (id >= table.bytes / ENTRY_BYTES) {
    return UNREACHABLE;
  }
  return (yield* run.windows.visible(address)) ? address : UNREACHABLE;
}

/** PA[51:16] of a level-1 entry given as halves. */
export const blockAddress = (low: number, high: number): Address =>
  (high & 0xf_ffff) * 2 ** 32 + (low >>> 16) * 65536;

function* readLevel1(run: Run, at: Address): ReturnType<Run['windows']['read']> {
  yield* mayRead('level-1-table', windowStart(at), 4096);
  return yield* run.windows.read(at);
}
