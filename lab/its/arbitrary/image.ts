import { GICD, GICR, GITS } from 'demand-paging/arm64';
import * as fc from 'fast-check';
import { GuestMemory } from '../../../test/arm64/guest-memory.js';
import { anyImage } from '../../../test/arm64/image-arbitrary.js';
import { anyMutation, mutate } from '../../../test/arm64/image-mutation.js';
import { buildImage, type Image, LAYOUT } from '../../../test/arm64/its-image.js';
import { type Script, type ScriptStep } from '../script.js';

const SLOT = { gpa: LAYOUT.base, size: 0x110_0000n };
export const IMAGE_BYTES = Number(SLOT.size);

function registers({ vcpuIds, indirect }: Image, forwarding: boolean): ScriptStep[] {
  const redistributors = vcpuIds.flatMap((_, cpu): ScriptStep[] => [
    { op: 'gicr_set', cpu, off: BigInt(GICR.PROPBASER), val: LAYOUT.configuration | 0x78fn, size: 8 },
    { op: 'gicr_set', cpu, off: BigInt(GICR.PENDBASER), val: LAYOUT.pending(cpu) | 0x780n, size: 8 },
    { op: 'gicr_set', cpu, off: BigInt(GICR.CTLR), val: 1n, size: 4 },
  ]);
  const its = (off: number, val: bigint): ScriptStep => ({ op: 'its_set', its: 0, off: BigInt(off), val });
  return [
    ...redistributors,
    { op: 'gicd_set', off: BigInt(GICD.CTLR), val: forwarding ? 0x12n : 0x10n, size: 4 },
    its(GITS.CBASER, (1n << 63n) | LAYOUT.queue),
    its(GITS.BASER0, (1n << 63n) | (indirect ? 1n << 62n : 0n) | LAYOUT.devices),
    its(GITS.BASER1, (1n << 63n) | LAYOUT.collections),
  ];
}

function wordsOf(memory: GuestMemory): (readonly [bigint, bigint])[] {
  const words: (readonly [bigint, bigint])[] = [];
  for (const [page, bytes] of [...memory.pages].sort(([a], [b]) => (a < b ? -1 : 1)))
    new BigUint64Array(bytes.buffer).forEach((word, at) => {
      const gpa = page + BigInt(at * 8);
      if (word !== 0n && gpa < SLOT.gpa + SLOT.size) words.push([gpa, word]);
    });
  return words;
}

/**
 * A saved image, perhaps corrupted, restored into a fresh VM, perhaps with one of its pages missing at first;
 * then tried again, used and saved.
 */
export const anyRestore: fc.Arbitrary<Script> = fc
  .record({
    image: anyImage,
    mutations: fc.array(anyMutation, { maxLength: 4 }),
    forwarding: fc.boolean(),
    gone: fc.option(fc.nat(1000), { nil: undefined }),
    reset: fc.boolean(),
  })
  .map(({ image, mutations, forwarding, gone, reset }): Script => {
    const memory = new GuestMemory([{ start: SLOT.gpa, bytes: SLOT.size }]);
    const { itts } = buildImage(image, memory);
    for (const mutation of mutations) mutate(memory, itts, mutation);
    const pages = [...memory.pages.keys()].filter((page) => memory.visible(page));
    const missing = gone === undefined || pages.length === 0 ? undefined : pages[gone % pages.length]!;
    const list = image.devices
      .flatMap(({ id, entries }) => entries.map(({ event }) => [id, event] as const))
      .slice(0, 12);
    const begin = registers(image, forwarding);
    const restore: ScriptStep = { op: 'restore_tables', its: 0 };
    const again: ScriptStep[] = reset
      ? [{ op: 'ctrl_reset', its: 0 }, ...begin.slice(-3), restore]
      : [restore];
    return {
      id: 'I',
      family: 'I',
      index: 0,
      desc: 'a saved image restored',
      vm: {
        memslots: [SLOT],
        vcpu_ids: [...image.vcpuIds],
        its_base: LAYOUT.itsBase,
        gicd_base: 0x800_0000n,
        gicr_base: 0x80a_0000n,
      },
      mem0: wordsOf(memory),
      steps: [
        ...begin,
        ...(missing === undefined ? [] : [{ op: 'miss_page', gpa: missing } as const]),
        restore,
        ...(missing === undefined ? [] : [{ op: 'fill_page', gpa: missing } as const]),
        ...again,
        { op: 'its_set', its: 0, off: BigInt(GITS.CTLR), val: 1n },
        { op: 'msis', its: 0, list },
        { op: 'save_pending' },
        { op: 'save_tables', its: 0 },
      ],
    };
  });
