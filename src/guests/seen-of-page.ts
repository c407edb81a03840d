import { type GuestAccess } from './messages.js';

/**
 * The bytes that a fetch or a walk saw of a page, with the requested bytes, which are loaded afterwards. If a
 * load of the same bytes sees something else, the bytes that were seen come first, so that the suite
 * recognises no contents. `load`: of the page, from an offset. `where`: the offset of what was seen.
 */
export function seenOfPage(
  load: (offset: number, length: number) => Uint8Array,
  { offset, length }: GuestAccess,
  where: number,
  seen: Uint8Array,
): Uint8Array {
  const bytes = load(offset, length);
  const loaded = load(where, seen.length);
  if (Buffer.compare(loaded, seen) !== 0) bytes.set(seen.subarray(0, Math.min(seen.length, length)));
  return bytes;
}
