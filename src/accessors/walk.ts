import { type PageIndex, type PageRange } from '../api/address.js';

/** Which pages an accessor touches, and in what order. Cloneable. */
export interface Walk {
  readonly pages: readonly PageRange[];
  readonly order: 'sequential' | 'random';
  /** Chooses the random order; the same seed gives the same order. */
  readonly seed: number;
}

/** What an accessor saw on a walk. Cloneable. */
export interface WalkReport {
  /** Pages read whole and added to {@link checksum}. */
  readonly pages: number;
  readonly bytes: number;
  /** See {@link addPage}. */
  readonly checksum: number;
  /** From the start of the walk to the end of its first access, in milliseconds. */
  readonly firstAccess_ms: number;
  readonly elapsed_ms: number;
  /** The slowest access, in milliseconds. */
  readonly slowest_ms: number;
  /** Whether it was interrupted before the last page. */
  readonly interrupted: boolean;
  /** Accesses that failed; the first of them. */
  readonly failures: number;
  readonly firstFailure: { readonly page: PageIndex; readonly errno: number } | undefined;
}

/** The pages of a walk in its order. */
export function* pagesOf(walk: Walk): Generator<PageIndex> {
  if (walk.order === 'random') return yield* shuffled(walk);
  for (const { first, count } of walk.pages) for (let page = first; page < first + count; page++) yield page;
}

function shuffled({ pages, seed }: Walk): Float64Array {
  const list = new Float64Array(pages.reduce((sum, { count }) => sum + count, 0));
  let at = 0;
  for (const { first, count } of pages)
    for (let page = first; page < first + count; page++) list[at++] = page;
  const next = mulberry32(seed);
  for (let last = list.length - 1; last > 0; last--) {
    const other = Math.floor(next() * (last + 1));
    const page = list[last]!;
    list[last] = list[other]!;
    list[other] = page;
  }
  return list;
}

/** A small random number generator in [0, 1): Mulberry32. */
export function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b_79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
