import { describe, expect, test } from 'vitest';
import {
  type ContentsChoice,
  fileOffset,
  gpa,
  type MemoryKind,
  openPager,
  type PageSource,
  type PageStatesSnapshot,
  type Pager,
} from 'demand-paging';
import { type MemoryBackend, memoryBackend } from 'demand-paging/backends/memory';

const PAGE = 4096;
const PAGES = 16;
const OLD = 0xdd;

const source: PageSource = {
  synchronous: true,
  length: PAGES * PAGE,
  read: (offset, into) => {
    for (let at = 0; at < into.length; at += PAGE) into.fill((offset + at) / PAGE + 1, at, at + PAGE);
    return into.length;
  },
};

interface Given {
  readonly memory: MemoryKind;
  readonly contents?: ContentsChoice;
  /** Pages that have something. */
  readonly there: readonly number[];
  readonly states?: PageStatesSnapshot;
}

const bitmap = (...pages: readonly number[]): Uint8Array => {
  const bits = new Uint8Array(PAGES / 8);
  for (const page of pages) bits[page >>> 3]! |= 1 << (page & 7);
  return bits;
};

async function open({
  memory,
  contents,
  there,
  states,
}: Given): Promise<{ pager: Pager; backend: MemoryBackend }> {
  const backend = memoryBackend({
    contents: (page) => (there.includes(page) ? new Uint8Array(PAGE).fill(OLD) : undefined),
  });
  const pager = await openPager({
    backend,
    regions: [
      {
        gpa: gpa(0),
        length: BigInt(PAGES * PAGE),
        sourceOffset: fileOffset(0),
        memory,
        pageSize: PAGE,
        contents,
      },
    ],
    source,
    policy: { faultAroundPages: 1 },
    ...(states && { states }),
  });
  return { pager, backend };
}

const read = async (backend: MemoryBackend, page: number): Promise<number> =>
  (await backend.kernel.run({ site: 'vmm-load', page, length: 1 })).bytes[0]!;

describe.each(['anonymous', 'shmem'] as const)('the model of %s memory that has pages', (memory) => {
  test('refuses by default, and where more is there than the states say', async () => {
    await expect(open({ memory, there: [3] })).rejects.toMatchObject({ code: 'NOT_EMPTY' });
    const states = { present: bitmap(3) };
    await expect(open({ memory, there: [3, 4], states })).rejects.toMatchObject({ code: 'NOT_EMPTY' });
    await expect(open({ memory, there: [4], states, contents: 'discard' })).rejects.toMatchObject({
      code: 'PAGE_VANISHED',
    });
  });

  test('discards them, but for those that the states say are present', async () => {
    const states = { present: bitmap(3) };
    const { pager, backend } = await open({ memory, there: [3, 4], states, contents: 'discard' });
    expect([await read(backend, 3), await read(backend, 4)]).toEqual([OLD, 5]);
    await pager.close();
  });

  test('keeps them', async () => {
    const { pager, backend } = await open({ memory, there: [3, 4], contents: 'keep' });
    await pager.prefetch();
    expect(pager.complete).toBe(true);
    expect(await Promise.all([3, 4, 5].map((page) => read(backend, page)))).toEqual([OLD, OLD, 6]);
    await pager.close();
  });

  test('a removed page comes as zeros', async () => {
    const { pager, backend } = await open({
      memory,
      there: [],
      states: { present: bitmap(), removed: bitmap(3) },
    });
    await pager.prefetch();
    expect(await read(backend, 3)).toBe(0);
    await pager.close();
  });
});
