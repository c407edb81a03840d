import { isDeepStrictEqual } from 'node:util';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Gpa } from '../../src/api/index.js';
import { anyImage } from './image-arbitrary.js';
import { anyMutation, mutate } from './image-mutation.js';
import { buildImage, LAYOUT, prepareVgic, stateOf } from './its-image.js';
import { NaiveRestore, type NaiveRegisters } from './naive-restore.js';
import { GITS } from '../../src/arm64/registers.js';
import type { Vgic } from '../../src/arm64/vgic.js';

/* A million runs in the long version; ITS_FUZZ_RUNS sets any other number. */
const LONG = process.env['DEMAND_PAGING_LONG'] === '1';
const RUNS = Number(process.env['ITS_FUZZ_RUNS'] ?? (LONG ? 1_000_000 : 10_000));

function registersOf(vgic: Vgic, vcpuIds: readonly number[], forwarding: boolean): NaiveRegisters {
  return {
    baser0: vgic.readItsRegister(0, GITS.BASER0).value,
    baser1: vgic.readItsRegister(0, GITS.BASER1).value,
    propbaser: vgic.readRedistributorRegister(0, 0x70),
    pendbasers: vcpuIds.map((_, vcpu) => vgic.readRedistributorRegister(vcpu, 0x78)),
    vcpuIds,
    forwarding,
  };
}

/** `expect().toEqual` costs more than a whole restore: it is only asked to explain a difference. */
function agree(actual: unknown, expected: unknown): void {
  if (!isDeepStrictEqual(actual, expected)) expect(actual).toEqual(expected);
}

describe('restore of fuzzed images', () => {
  const scenario = fc.record({
    image: anyImage,
    mutations: fc.array(anyMutation, { maxLength: 4 }),
    forwarding: fc.boolean(),
    gone: fc.option(fc.nat(1000), { nil: undefined }),
  });

  it(
    `agrees with a plain reading of the kernel in errno, state, memory and first touches`,
    () => {
      fc.assert(
        fc.property(scenario, ({ image, mutations, forwarding, gone }) => {
          const { memory, itts } = buildImage(image);
          for (const mutation of mutations) mutate(memory, itts, mutation);
          const { vcpuIds, indirect } = image;
          const options = { vcpuIds, indirect, forwarding, devicePages: 1 };
          const kernel = prepareVgic(memory, { ...options, mode: 'kvm' });
          const pages = [...memory.pages.keys()];
          if (gone !== undefined && pages.length > 0) memory.gone.add(pages[gone % pages.length]!);
          const twin = memory.clone();
          const before = memory.clone();

          memory.clearTrace();
          const status = memory.run(kernel.restoreTables());
          const naive = new NaiveRestore(twin, registersOf(kernel, vcpuIds, forwarding)).run();

          agree(status, naive.status);
          agree([...memory.touches], [...twin.touches]);
          agree(memory.differingPages(twin), []);
          agree(
            [...kernel.entries()].map((e) => [e.device, e.event, e.intid, e.collection]),
            naive.entries,
          );
          agree(
            [...kernel.collections()].map(({ id, target }) => [id, target < 0 ? 0xffff_ffff : target]),
            naive.collections,
          );
          const lpis = [...naive.lpis].sort(([a], [b]) => a - b);
          agree(
            [...kernel.lpis()],
            lpis.map(([intid, { target, pending, enabled, priority, apList }]) => ({
              intid,
              target,
              pending,
              enabled,
              priority,
              apList,
            })),
          );

          // its-restore-transactional: the same failure leaves nothing behind.
          const careful = prepareVgic(before, options);
          const empty = stateOf(careful);
          const untouched = before.clone();
          before.clearTrace();
          agree(before.run(careful.restoreTables()), status);
          agree([...before.touches], [...twin.touches]);
          if (status !== 0) {
            agree(stateOf(careful), empty);
            agree(before.differingPages(untouched), []);
          } else {
            agree(stateOf(careful), stateOf(kernel));
            agree(before.differingPages(memory), []);
          }
          // Bounded work: a few yields per touched page, whatever the tables say.
          expect(before.asks).toBeLessThanOrEqual(4 * before.touches.size + 64);
        }),
        { numRuns: RUNS },
      );
    },
    RUNS * 20 + 60_000,
  );

  it('fails in every way there is, so that the comparison means something', () => {
    const seen = new Set<number>();
    fc.assert(
      fc.property(scenario, ({ image, mutations, gone }) => {
        const { memory, itts } = buildImage(image);
        for (const mutation of mutations) mutate(memory, itts, mutation);
        const pages = [...memory.pages.keys()];
        const vgic = prepareVgic(memory, { ...image, devicePages: 1 });
        if (gone !== undefined && pages.length > 0) memory.gone.add(pages[gone % pages.length]!);
        seen.add(memory.run(vgic.restoreTables()));
      }),
      { numRuns: 1000, seed: 7 },
    );
    expect(seen).toEqual(new Set([0, -14, -17, -22]));
  });
});

describe('restore and save', () => {
  it('come to the same in a run with room for two windows as in one with room for all', () => {
    fc.assert(
      fc.property(anyImage, (image) => {
        const { memory } = buildImage(image);
        const tight = memory.clone();
        const roomy = prepareVgic(memory, { ...image, devicePages: 1 });
        const cramped = prepareVgic(tight, { ...image, devicePages: 1, maxWindows: 2 });
        for (const [vgic, guest] of [
          [roomy, memory],
          [cramped, tight],
        ] as const) {
          agree(guest.run(vgic.restoreTables()), 0);
          agree(guest.run(vgic.savePendingTables()), 0);
          agree(guest.run(vgic.saveTables()), 0);
        }
        agree(stateOf(cramped), stateOf(roomy));
        agree(tight.differingPages(memory), []);
        agree([...tight.touches], [...memory.touches]);
      }),
      { numRuns: 200 },
    );
  });

  it('saves the image that it restored', () => {
    fc.assert(
      fc.property(anyImage, (image) => {
        const { memory } = buildImage(image);
        const vgic = prepareVgic(memory, { ...image, devicePages: 1 });
        const before = memory.clone();
        memory.run(vgic.restoreTables());
        memory.run(vgic.savePendingTables());
        memory.run(vgic.saveTables());
        agree(memory.differingPages(before), []);
      }),
      { numRuns: 200 },
    );
  });
});

describe('its-restore-transactional', () => {
  it('succeeds after the missing page came, with the pending bit that the kernel would have lost', () => {
    const image = {
      vcpuIds: [0, 1],
      indirect: false,
      collections: [
        { id: 0, vcpu: 0 },
        { id: 1, vcpu: 1 },
      ],
      devices: [
        {
          id: 7,
          eventBits: 4,
          entries: [{ event: 3, intid: 8192, collection: 0, configuration: 0xa1, pending: true }],
        },
        {
          id: 9,
          eventBits: 4,
          entries: [{ event: 1, intid: 50000, collection: 1, configuration: 0xa1, pending: true }],
        },
      ],
    };
    const outcome = (mode: 'kvm' | 'transactional'): unknown => {
      const { memory } = buildImage(image);
      const vgic = prepareVgic(memory, { ...image, mode });
      memory.gone.add((LAYOUT.configuration + 0xa000n) as Gpa); // the second LPI's configuration
      const first = memory.run(vgic.restoreTables());
      memory.gone.clear();
      const second = memory.run(vgic.restoreTables());
      return {
        first,
        second,
        pending: [...vgic.lpis()].filter(({ pending }) => pending).map(({ intid }) => intid),
      };
    };
    expect(outcome('kvm')).toEqual({ first: -14, second: 0, pending: [50000] });
    expect(outcome('transactional')).toEqual({ first: -14, second: 0, pending: [8192, 50000] });
  });
});
