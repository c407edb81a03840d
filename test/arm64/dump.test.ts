import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { decodeEntries, dumpImage, ite, type DumpRegisters } from '../../src/arm64/index.js';
import { anyImage } from './image-arbitrary.js';
import { buildImage, LAYOUT, type Image } from './its-image.js';

const registersOf = (image: Image): DumpRegisters => ({
  baser0: (1n << 63n) | (image.indirect ? 1n << 62n : 0n) | LAYOUT.devices | 0x200n,
  baser1: (1n << 63n) | LAYOUT.collections | 0x200n,
  propbaser: LAYOUT.configuration | 0xfn,
  pendbasers: new Map(image.vcpuIds.map((id, vcpu) => [id, LAYOUT.pending(vcpu)])),
});

describe('dump of a saved image', () => {
  it('shows what was put in', () => {
    fc.assert(
      fc.property(anyImage, (image) => {
        const { memory, itts } = buildImage(image);
        const before = memory.clone();
        const dump = memory.run(dumpImage(registersOf(image)));
        const homes = new Map(image.collections.map(({ id, vcpu }) => [id, vcpu]));
        expect(dump.complete).toBe(true);
        expect(dump.problems).toEqual([]);
        expect(dump.collections).toEqual(
          image.collections.map(({ id, vcpu }) => ({
            id,
            target: vcpu < 0 ? undefined : image.vcpuIds[vcpu],
          })),
        );
        expect(dump.devices).toEqual(
          image.devices.map(({ id, eventBits, entries }, index) => ({
            id,
            eventBits,
            itt: itts[index],
            entries: entries.map(({ event, intid, collection, configuration, pending }) => ({
              event,
              intid,
              collection,
              enabled: (configuration & 1) === 1,
              priority: configuration & 0xfc,
              pending: homes.get(collection)! < 0 ? undefined : pending,
            })),
          })),
        );
        expect(memory.differingPages(before)).toEqual([]);
      }),
      { numRuns: 100 },
    );
  });

  const image: Image = {
    vcpuIds: [0],
    indirect: false,
    collections: [{ id: 0, vcpu: 0 }],
    devices: [
      {
        id: 1,
        eventBits: 4,
        entries: [{ event: 0, intid: 8192, collection: 0, configuration: 1, pending: false }],
      },
      {
        id: 2,
        eventBits: 4,
        entries: [{ event: 0, intid: 8193, collection: 0, configuration: 1, pending: false }],
      },
    ],
  };

  it('lists what a restore would refuse, and goes on', () => {
    const { memory, itts } = buildImage(image);
    memory.setWord(itts[0]!, ite.encode({ collection: 9, intid: 100, next: 3 }));
    memory.setWord(itts[0]! + 24n, ite.encode({ collection: 9, intid: 8192, next: 500 }));
    memory.setWord(LAYOUT.collections + 8n, memory.word(LAYOUT.collections));
    const dump = memory.run(dumpImage(registersOf(image)));
    expect(dump.problems.map(({ what }) => what)).toEqual([
      'collection 0 a second time',
      'INTID 100 is no LPI',
      'collection 9 does not exist',
      'next 500 of event 3 leads past the table',
    ]);
    expect(dump.devices.map(({ entries }) => entries.length)).toEqual([2, 1]);
  });

  it('names addresses that cannot be read', () => {
    const { memory, itts } = buildImage(image);
    memory.gone.add(itts[1]! - (itts[1]! % 4096n));
    const dump = memory.run(dumpImage(registersOf(image)));
    expect(dump.problems.map(({ what }) => what)).toContain('cannot be read: EFAULT');
  });

  it('is bounded on hostile tables', () => {
    const { memory } = buildImage({
      ...image,
      devices: Array.from({ length: 500 }, (_, id) => ({ id, eventBits: 16, entries: [] })),
    });
    const dump = memory.run(dumpImage(registersOf(image), { maxWindows: 300 }));
    expect(dump.complete).toBe(false);
    expect(memory.touches.size).toBeLessThanOrEqual(300);
    const few = buildImage(image);
    expect(few.memory.run(dumpImage(registersOf(image), { maxEntries: 1 })).complete).toBe(false);
  });

  it('decodes dense pieces of a table', () => {
    fc.assert(
      fc.property(fc.array(fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), { maxLength: 64 }), (words) => {
        const bytes = new Uint8Array(words.length * 8);
        words.forEach((word, at) => new DataView(bytes.buffer).setBigUint64(at * 8, word, true));
        const expected = words
          .map((word, at) => ({ event: 5 + at, ...ite.decode(word) }))
          .filter(({ intid }) => intid !== 0)
          .map(({ event, intid, collection }) => ({ event, intid, collection }));
        expect(decodeEntries(bytes, 5)).toEqual(expected);
      }),
    );
  });
});
