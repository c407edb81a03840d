/*
 * A checksum over pages that does not depend on the order in which they were seen: each page's bytes
 * are hashed together with the page's number, and the hashes are added up. Zeros in a page, a torn
 * page and two pages in each other's place all change it.
 */

const PRIME = 0x0100_0193;
const OFFSET = 0x811c_9dc5;

/** The hash of one page: FNV-1a over 32-bit words, seeded with its number. `bytes` is 4-byte aligned. */
export function pageHash(page: number, bytes: Uint8Array): number {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >>> 2);
  let hash = Math.imul(OFFSET ^ page, PRIME);
  for (let at = 0; at < words.length; at++) hash = Math.imul(hash ^ words[at]!, PRIME);
  return (hash ^ (hash >>> 15)) >>> 0;
}

/** Adds one page's hash to a sum of such hashes: 32 bits, wrapping. */
export const addPage = (sum: number, page: number, bytes: Uint8Array): number =>
  (sum + pageHash(page, bytes)) >>> 0;
