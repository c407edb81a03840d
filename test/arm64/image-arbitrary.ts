import * as fc from 'fast-check';
import type { Image, ImageDevice } from './its-image.js';

/** Well-formed images as a save writes them, small but with gaps, several vCPUs and unmapped collections. */
export const anyImage: fc.Arbitrary<Image> = fc
  .record({
    vcpus: fc.integer({ min: 1, max: 4 }),
    indirect: fc.boolean(),
    seeds: fc.uniqueArray(fc.integer({ min: 0, max: 65535 }), { minLength: 0, maxLength: 6 }),
    widths: fc.array(fc.integer({ min: 1, max: 14 }), { minLength: 6, maxLength: 6 }),
    events: fc.array(fc.array(fc.nat(16383), { maxLength: 8 }), { minLength: 6, maxLength: 6 }),
    intids: fc.uniqueArray(fc.integer({ min: 8192, max: 65535 }), { minLength: 48, maxLength: 48 }),
    bytes: fc.array(fc.nat(255), { minLength: 48, maxLength: 48 }),
    pending: fc.array(fc.boolean(), { minLength: 48, maxLength: 48 }),
    icids: fc.uniqueArray(fc.nat(8191), { minLength: 1, maxLength: 4 }),
    homes: fc.array(fc.integer({ min: -1, max: 3 }), { minLength: 4, maxLength: 4 }),
  })
  .map((raw) => {
    let used = 0;
    const collections = raw.icids.map((id, index) => ({
      id,
      vcpu: Math.min(raw.homes[index]!, raw.vcpus - 1),
    }));
    // A flat table of one page has 8192 entries.
    const ids = raw.indirect ? raw.seeds : [...new Set(raw.seeds.map((id) => id % 8192))];
    const devices = ids
      .sort((a, b) => a - b)
      .map((id, index): ImageDevice => {
        const eventBits = raw.widths[index]!;
        const events = [...new Set(raw.events[index]!.map((event) => event % 2 ** eventBits))].sort(
          (a, b) => a - b,
        );
        const entries = events.map((event) => {
          const at = used++;
          return {
            event,
            intid: raw.intids[at]!,
            collection: collections[at % collections.length]!.id,
            configuration: raw.bytes[at]!,
            pending: raw.pending[at]!,
          };
        });
        return { id, eventBits, entries };
      });
    return {
      vcpuIds: Array.from({ length: raw.vcpus }, (_, index) => index * 7),
      indirect: raw.indirect,
      collections,
      devices,
    };
  });
