import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Program } from '../../src/api/index.js';
import { Windows } from '../../src/arm64/windows.js';
import { IntidIndex } from '../../src/arm64/intid-index.js';
import { LpiStore } from '../../src/arm64/lpi-store.js';
import { GuestMemory } from './guest-memory.js';

const BASE = 0x8000_0000;

const anyAction = fc.oneof(
  fc.record({ kind: fc.constant('read' as const), at: fc.nat(4 * 4096 - 1) }),
  fc.record({ kind: fc.constant('byte' as const), at: fc.nat(4 * 4096 - 1), value: fc.nat(255) }),
  fc.record({ kind: fc.constant('word' as const), at: fc.nat(4 * 512 - 1), value: fc.nat(0xffff_ffff) }),
  fc.record({ kind: fc.constant('reread' as const), at: fc.nat(4 * 4096 - 1) }),
);

describe('the cache of a run', () => {
  it('is memory: reads see writes, and a flush leaves exactly what was written', () => {
    fc.assert(
      fc.property(
        fc.array(anyAction, { maxLength: 60 }),
        fc.integer({ min: 1, max: 4 }),
        (actions, maxWindows) => {
          const memory = new GuestMemory();
          for (let page = 0; page < 4; page++) memory.page(BigInt(BASE + page * 4096)).fill(page + 1);
          const model = memory.clone();
          const windows = new Windows(false, { maxWindows });
          memory.run(
            (function* (): Program<void> {
              for (const action of actions) {
                const address = BASE + (action.kind === 'word' ? action.at * 8 : action.at);
                if (action.kind === 'word') {
                  expect(yield* windows.writeWord(address, action.value, 7)).toBe(0);
                  model.setWord(BigInt(address), (7n << 32n) | BigInt(action.value));
                  continue;
                }
                const window =
                  action.kind === 'reread' ? yield* windows.reread(address) : yield* windows.read(address);
                if (typeof window === 'number') throw new Error(`read failed with ${window}`);
                expect(Buffer.compare(window.bytes, model.page(BigInt(address)))).toBe(0);
                if (action.kind === 'byte') {
                  windows.setByte(window, address - window.start, action.value);
                  model.setByte(BigInt(address), action.value);
                }
              }
              expect(yield* windows.flush()).toBe(0);
            })(),
          );
          expect(memory.differingPages(model)).toEqual([]);
        },
      ),
      { numRuns: 500 },
    );
  });

  it('yields a write to an untouched page at once, and merges those that follow', () => {
    const memory = new GuestMemory();
    const windows = new Windows(false);
    const asks: string[] = [];
    const program = (function* (): Program<void> {
      for (let at = 0; at < 512; at++) yield* windows.writeWord(BASE + at * 8, at, 0);
      yield* windows.flush();
    })();
    let step = program.next();
    while (step.done !== true) {
      if (step.value.ask === 'write')
        asks.push(`${step.value.gpa - BigInt(BASE)}+${step.value.bytes.length}`);
      step = program.next(memory.answer(step.value));
    }
    expect(asks).toEqual(['0+8', '8+4088']);
  });

  it('of an undoable run refuses to write what it never read', () => {
    const windows = new Windows(true);
    expect(() => new GuestMemory().run(windows.writeWord(BASE, 1, 1))).toThrow(TypeError);
  });
});

describe('the index of large INTIDs', () => {
  it('is a map', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.boolean(), fc.integer({ min: 65536, max: 65536 + 300 })), { maxLength: 400 }),
        (actions) => {
          const index = new IntidIndex();
          const model = new Map<number, number>();
          actions.forEach(([add, intid], slot) => {
            if (!add) {
              index.delete(intid);
              model.delete(intid);
            } else if (!model.has(intid)) {
              index.add(intid, slot);
              model.set(intid, slot);
            }
          });
          const twin = index.clone();
          const all = Array.from({ length: 301 }, (_, at) => 65536 + at);
          const expected = all.map((intid) => model.get(intid) ?? -1);
          expect(all.map((intid) => index.get(intid))).toEqual(expected);
          expect(all.map((intid) => twin.get(intid))).toEqual(expected);
          expect([...index.ascending()]).toEqual([...model.keys()].sort((a, b) => a - b));
        },
      ),
      { numRuns: 300 },
    );
  });

  it('holds the largest INTID, and a million scattered ones without slowing to a crawl', () => {
    const store = new LpiStore();
    for (let at = 0; at < 1_000_000; at++) store.add(65536 + at * 4096 + (at % 7), 0);
    store.add(0xffff_ffff, 1);
    expect(store.target[store.find(0xffff_ffff)]).toBe(1);
    expect(store.count).toBe(1_000_001);
    const slots = store.ordered('intid');
    expect(slots.every((slot, at) => at === 0 || store.intid[slots[at - 1]!]! < store.intid[slot]!)).toBe(
      true,
    );
  });
});
