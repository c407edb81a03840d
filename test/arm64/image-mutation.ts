import * as fc from 'fast-check';
import { type GuestMemory } from './guest-memory.js';
import { LAYOUT } from './its-image.js';

/** One corruption of an image: a word of a table is replaced or has a bit flipped. */
export const anyMutation = fc.record({
  where: fc.constantFrom('collections', 'devices', 'block', 'itt', 'configuration', 'pending'),
  index: fc.nat(600),
  change: fc.oneof(
    fc.record({ bit: fc.nat(63) }),
    fc.record({ word: fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }) }),
    // A copy of another entry of the table: duplicates.
    fc.record({ copy: fc.nat(600) }),
    // A valid-looking entry whose address lands somewhere in guest memory or just outside.
    fc.record({ word: fc.nat(0xffff).map((page) => (1n << 63n) | (BigInt(page) << 16n) | 0x8000_0000n) }),
  ),
});

/** @see anyMutation */
export type Mutation = typeof anyMutation extends fc.Arbitrary<infer T> ? T : never;

/** Corrupts an image where it has content. */
export function mutate(memory: GuestMemory, itts: readonly bigint[], mutation: Mutation): void {
  const { where, index, change } = mutation;
  const bases: Record<typeof where, bigint> = {
    collections: LAYOUT.collections,
    devices: LAYOUT.devices,
    block: LAYOUT.blocks(index % 8),
    itt: itts.length > 0 ? itts[index % itts.length]! : LAYOUT.itts,
    configuration: LAYOUT.configuration,
    pending: LAYOUT.pending(index % 4),
  };
  // Mutations of the word that is there hit far more often than those of empty space.
  const used = [...memory.pages].filter(([page]) => page >= bases[where] && page < bases[where] + 0x1_0000n);
  const [page, bytes] = used[index % Math.max(1, used.length)] ?? [bases[where], new Uint8Array(4096)];
  const words: number[] = [];
  new BigUint64Array(bytes.buffer).forEach((word, at) => word !== 0n && words.push(at * 8));
  const gpa = page + BigInt(words[index % Math.max(1, words.length)] ?? (index % 512) * 8);
  if ('bit' in change) memory.setWord(gpa, memory.word(gpa) ^ (1n << BigInt(change.bit)));
  else if ('word' in change) memory.setWord(gpa, change.word);
  else memory.setWord(gpa, memory.word(page + BigInt(words[change.copy % Math.max(1, words.length)] ?? 0)));
}
