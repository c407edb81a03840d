import { pageHash } from 'demand-paging/accessors';

export const PAGE = 4096;
/** Of each memory in the soak. */
export const PAGES = 4096;

/**
 * The source's bytes: no word is 0, and none the same at another place. fixtures/foreign-vmm.c has the same.
 */
export function imageOf(seed: number): SharedArrayBuffer {
  const shared = new SharedArrayBuffer(PAGES * PAGE);
  const words = new Uint32Array(shared);
  for (let at = 0; at < words.length; at++) words[at] = (Math.imul(at + 1, 0x9e37_79b1) ^ seed) | 1;
  return shared;
}

/** What {@link pageHash} says of each page that has these bytes. */
export const hashesOf = (image: SharedArrayBuffer): Uint32Array =>
  Uint32Array.from({ length: PAGES }, (_, page) => pageHash(page, new Uint8Array(image, page * PAGE, PAGE)));
