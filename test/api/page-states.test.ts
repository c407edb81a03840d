import { describe, expect, it } from 'vitest';
import * as fc from 'fast-check';
import { PageStates, type Plane } from '../../src/api/index.js';

const PLANES: readonly Plane[] = ['removed', 'poisoned', 'write-protected', 'frozen', 'unmapped'];
const range = (first: number, count: number) => ({ first, count });

/** What a reader in another isolate has: the same buffers, and views of its own made before any change. */
function pair(pages: number) {
  const owner = PageStates.create(pages);
  return { owner, reader: new PageStates(owner.shared) };
}

/** Where a bit is first, or the length where it is not. */
const firstOf = (bits: Uint8Array, bit: number): number =>
  bits.includes(bit) ? bits.indexOf(bit) : bits.length;

describe('PageStates', () => {
  it('blocks allocated by another isolate: a reader sees them', () => {
    const { owner, reader } = pair(64);
    owner.set('removed', range(5, 1), true);
    expect(reader.is('removed', 5)).toBe(true);
    expect(reader.any('removed', range(0, 64))).toBe(true);
    expect(reader.is('removed', 4)).toBe(false);
  });

  it('memory: 33 MiB for 1 TiB of small pages when idle, and 512 bytes a block in use', () => {
    const states = PageStates.create(2 ** 28);
    expect(Math.round(states.byteLength / 2 ** 20)).toBe(33);
    const idle = states.byteLength;
    states.set('frozen', range(4096 * 1000 + 7, 1), true);
    expect(states.byteLength - idle).toBe(512);
    states.set('removed', range(0, 2 ** 28), true); // whole chunks need no block
    expect(states.byteLength - idle).toBe(512);
  });

  it('a page in several planes: its state is the one that weighs most', () => {
    const states = PageStates.create(8);
    states.setPresent(range(0, 4), true);
    states.set('poisoned', range(1, 1), true);
    states.set('removed', range(2, 4), true);
    states.set('unmapped', range(5, 1), true);
    expect(Array.from({ length: 7 }, (_, page) => states.stateOf(page))).toEqual([
      'present',
      'poisoned',
      'present',
      'present',
      'removed',
      'unmapped',
      'missing',
    ]);
  });

  it('plain: until a page is more than missing, present or write-protected', () => {
    const states = PageStates.create(8);
    states.setPresent(range(0, 8), true);
    states.set('write-protected', range(0, 8), true);
    states.set('frozen', range(0, 8), false);
    expect(states.plain).toBe(true);
    states.set('frozen', range(3, 1), true);
    expect(states.plain).toBe(false);
  });

  it('setting a range: counts the pages that changed, not those named', () => {
    const states = PageStates.create(100);
    expect(states.setPresent(range(10, 50), true)).toBe(50);
    expect(states.setPresent(range(0, 40), true)).toBe(10);
    expect(states.setPresent(range(30, 70), false)).toBe(30);
    expect(states.countPresent(range(0, 100))).toBe(30);
    expect(states.allPresent(range(0, 30))).toBe(true);
    expect(states.allPresent(range(0, 31))).toBe(false);
  });

  it('a snapshot entered into other states: the same, except for frozen', () => {
    const pages = 2 * 4096 + 77;
    const change = fc.record({
      what: fc.constantFrom<Plane | 'present'>('present', ...PLANES),
      first: fc.integer({ min: 0, max: pages - 1 }),
      count: fc.oneof(fc.constantFrom(1, 4096, 8192), fc.integer({ min: 1, max: pages })),
      on: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(change, { maxLength: 10 }), (changes) => {
        const [one, other] = [PageStates.create(pages), PageStates.create(pages)];
        for (const { what, first, count, on } of changes) {
          const cut = range(first, Math.min(count, pages - first));
          if (what === 'present') one.setPresent(cut, on);
          else one.set(what, cut, on);
        }
        other.restore(structuredClone(one.snapshot()));
        for (let page = 0; page < pages; page++) {
          if (one.isPresent(page) !== other.isPresent(page) || other.is('frozen', page)) return false;
          if (PLANES.some((plane) => plane !== 'frozen' && one.is(plane, page) !== other.is(plane, page)))
            return false;
        }
        return true;
      }),
      { numRuns: 40 },
    );
  });

  it('a snapshot of some ranges: their pages one after the other', () => {
    const one = PageStates.create(9000);
    one.setPresent(range(8190, 20), true);
    one.set('removed', range(4090, 10), true);
    const other = PageStates.create(25);
    other.restore(one.snapshot([range(8200, 15), range(4095, 8)]), 2);
    expect(Array.from({ length: 25 }, (_, page) => other.stateOf(page))).toEqual([
      ...['missing', 'missing'],
      ...new Array<string>(10).fill('present'),
      ...new Array<string>(5).fill('missing'),
      ...new Array<string>(5).fill('removed'),
      ...new Array<string>(3).fill('missing'),
    ]);
  });

  it('a snapshot of a wrong type or length: refused', () => {
    const states = PageStates.create(100);
    expect(() => states.restore({ present: new Uint8Array(12) })).toThrow(RangeError);
    expect(() => states.restore({ present: [] as never })).toThrow(TypeError);
    const removed = new Uint8Array(1);
    expect(() => states.restore({ present: new Uint8Array(13), removed })).toThrow(RangeError);
  });

  it('each plane and presence, at any ranges: as a set of pages', () => {
    const pages = 3 * 4096 + 100;
    const change = fc.record({
      what: fc.constantFrom<Plane | 'present'>('present', ...PLANES),
      // Around the borders of words and chunks, and anywhere.
      first: fc.oneof(
        fc.constantFrom(0, 31, 32, 4095, 4096, 8192, 12287),
        fc.integer({ min: 0, max: pages - 1 }),
      ),
      count: fc.oneof(fc.constantFrom(1, 32, 4096, 4097, 8192), fc.integer({ min: 1, max: pages })),
      on: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(change, { maxLength: 12 }), (changes) => {
        const { owner, reader } = pair(pages);
        const plain = new Map<string, Uint8Array>(
          ['present', ...PLANES].map((what) => [what, new Uint8Array(pages)]),
        );
        for (const { what, first, count, on } of changes) {
          const cut = range(first, Math.min(count, pages - first));
          if (what === 'present') owner.setPresent(cut, on);
          else owner.set(what, cut, on);
          plain.get(what)!.fill(on ? 1 : 0, first, first + cut.count);
        }
        const differing = [...plain].filter(([what, expected]) =>
          expected.some((bit, page) =>
            what === 'present'
              ? reader.isPresent(page) !== (bit === 1)
              : reader.is(what as Plane, page) !== (bit === 1),
          ),
        );
        const present = plain.get('present')!;
        return (
          differing.length === 0 &&
          owner.nextMissing(0, pages) === firstOf(present, 0) &&
          owner.nextPresent(0, pages) === firstOf(present, 1) &&
          PLANES.every((plane) => reader.any(plane, range(0, pages)) === plain.get(plane)!.includes(1))
        );
      }),
      { numRuns: 60 },
    );
  });

  it('grown at the end: an isolate that has read before sees the new pages', () => {
    const states = PageStates.create(100);
    const other = new PageStates(states.shared);
    expect(other.nextMissing(0, 100)).toBe(0);
    states.grow(10_000);
    for (const each of [states, other]) {
      expect(each.pageCount).toBe(10_000);
      expect(each.countPresent({ first: 0, count: 10_000 })).toBe(0);
    }
    other.setPresent({ first: 9_000, count: 10 }, true);
    states.set('removed', { first: 9_990, count: 10 }, true);
    expect([states.isPresent(9_005), other.stateOf(9_995), other.nextPresent(0, 10_000)]).toEqual([
      true,
      'removed',
      9_000,
    ]);
    expect(states.snapshot().present.length).toBe(1250);
    expect(() => states.grow(2 ** 32)).toThrow(expect.objectContaining({ code: 'BAD_RANGE' }) as Error);
    expect(states.pageCount).toBe(10_000);
  });
});
