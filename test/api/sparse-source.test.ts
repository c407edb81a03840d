import { MessageChannel } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import {
  fileOffset,
  gpa,
  type MemoryKind,
  openPager,
  type PageSource,
  type Pager,
  type ReadAnswer,
  servePort,
  type SourceRef,
} from '../../src/api/index.js';
import { zeroPages, zerosOf } from '../../src/api/read-answer.js';
import { type MemoryBackend, memoryBackend, type ModelOptions } from '../../src/backends/memory/index.js';

const PAGE = 4096;
const PAGES = 64;

/**
 * Page n is filled with n + 1, but for every third, which is zeros that are told of, and half of page 1,
 * which is as well.
 */
function fill(offset: number, into: Uint8Array): ReadAnswer {
  const zeros: { start: number; length: number }[] = [];
  for (let at = 0; at < into.length; at += PAGE) {
    const page = (offset + at) / PAGE;
    into.fill(page % 3 === 0 ? 0xee : page + 1, at, at + PAGE); // what is told of may be anything
    if (page % 3 === 0) zeros.push({ start: at, length: PAGE });
    if (page === 1) zeros.push({ start: at + 1000, length: 2000 });
  }
  return zeros.length > 0 ? { length: into.length, zeros: zeros.reverse() } : into.length;
}

const expected = (page: number): Uint8Array => {
  const bytes = new Uint8Array(PAGE).fill(page % 3 === 0 ? 0 : page + 1);
  return page === 1 ? bytes.fill(0, 1000, 3000) : bytes;
};

const synchronous: PageSource = { synchronous: true, length: PAGES * PAGE, read: fill };
const asynchronous: PageSource = {
  synchronous: false,
  length: PAGES * PAGE,
  read: (offset, into) => Promise.resolve(fill(offset, into)),
};
function overPort(): SourceRef {
  const { port1, port2 } = new MessageChannel();
  servePort(port1, asynchronous);
  return { port: port2, length: PAGES * PAGE, servedHere: true };
}

async function open(
  source: SourceRef,
  memory: MemoryKind = 'anonymous',
  options: ModelOptions = {},
): Promise<{ pager: Pager; backend: MemoryBackend }> {
  const backend = memoryBackend(options);
  const pager = await openPager({
    backend,
    regions: [
      { gpa: gpa(0), length: BigInt(PAGES * PAGE), sourceOffset: fileOffset(0), memory, pageSize: PAGE },
    ],
    source,
    policy: { retries: 0 },
  });
  return { pager, backend };
}

/** By one comparison: a matcher looks at every byte. */
const expectSame = (bytes: Uint8Array, number: number): void =>
  expect(Buffer.compare(bytes, expected(number)), `page ${number}`).toBe(0);

const page = async (pager: Pager, number: number): Promise<Uint8Array> =>
  pager.memory!.read(gpa(number * PAGE), PAGE);

describe.each([
  ['a synchronous source', () => synchronous],
  ['an asynchronous source', () => asynchronous],
  ['a source behind a port', overPort],
] as const)('%s that tells of zeros', (_, source) => {
  it.each(['anonymous', 'shmem', 'hugetlb'] as const)(
    'zeros are installed, and no bytes are counted for them (%s)',
    async (memory) => {
      const { pager, backend } = await open(source(), memory);
      const accesses = await Promise.all(
        [3, 4, 1].map((number) => backend.kernel.run({ site: 'vmm-load', page: number, length: PAGE })),
      );
      accesses.forEach(({ bytes }, i) => expectSame(bytes, [3, 4, 1][i]!));
      await pager.prefetch();
      for (let number = 0; number < PAGES; number++) expectSame(await page(pager, number), number);
      const holes = Math.ceil(PAGES / 3);
      expect(pager.complete).toBe(true);
      expect(pager.statistics()).toMatchObject({
        holePages: holes,
        fetched_bytes: (PAGES - holes) * PAGE,
        zeroPages: 0,
        removedPages: 0,
      });
      const { demandPages, aroundPages, prefetchPages } = pager.statistics();
      expect(demandPages + aroundPages + prefetchPages).toBe(PAGES);
      await pager.close();
    },
  );

  it('for protected pages, and pages in the page cache: zeros are installed', async () => {
    const { pager, backend } = await open(source(), 'shmem', { install: 'continue' });
    await pager.writeProtect([{ start: gpa(0), length: BigInt(8 * PAGE) }]);
    const write = backend.kernel.run({ site: 'vmm-store', page: 3, bytes: Uint8Array.of(7) });
    expect((await write).state).toBe('done');
    expect((await page(pager, 3)).subarray(0, 2)).toEqual(Uint8Array.of(7, 0));
    const second = await backend.kernel.run({ site: 'external-mapping', page: 48, bytes: Uint8Array.of(9) });
    expect(second.state).toBe('done');
    expectSame((await backend.kernel.run({ site: 'vmm-load', page: 48, length: PAGE })).bytes, 48);
    await pager.close();
  });
});

describe('what is wrong with an answer', () => {
  it.each<readonly [string, unknown, string]>([
    ['too few bytes', { length: PAGE - 1, zeros: [] }, 'SOURCE_LENGTH'],
    ['no zeros', { length: PAGE }, 'SOURCE_FAILED'],
    ['zeros past the end', { length: PAGE, zeros: [{ start: 1, length: PAGE }] }, 'SOURCE_FAILED'],
    ['zeros before the start', { length: PAGE, zeros: [{ start: -1, length: 2 }] }, 'SOURCE_FAILED'],
    ['half a byte', { length: PAGE, zeros: [{ start: 0, length: 0.5 }] }, 'SOURCE_FAILED'],
    ['no range', { length: PAGE, zeros: [undefined] }, 'SOURCE_FAILED'],
    ['nothing', undefined, 'SOURCE_FAILED'],
    ['a word', 'zeros', 'SOURCE_FAILED'],
  ])('%s', async (_, answer, code) => {
    const ofOnePage = (into: Uint8Array): unknown =>
      typeof answer === 'object' && into.length !== PAGE ? into.length : answer;
    for (const isSynchronous of [true, false]) {
      const { pager } = await open({
        synchronous: isSynchronous,
        length: PAGES * PAGE,
        read: (_offset, into) =>
          (isSynchronous ? ofOnePage(into) : Promise.resolve(ofOnePage(into))) as ReadAnswer,
      });
      pager.on('stopped', () => {});
      const failed = new Promise((resolve) =>
        pager.on('source-failed', (_pages, error) => resolve(error.code)),
      );
      await pager.ensure([{ start: gpa(0), length: BigInt(PAGE) }]).catch(() => {});
      expect(await failed).toBe(code);
      await pager.close();
    }
  });

  it('ranges in any order, overlapping, or empty: taken', () => {
    const zeros = [
      { start: 300, length: 100 },
      { start: 0, length: 100 },
      { start: 50, length: 100 },
      { start: 400, length: 10 },
      { start: 7, length: 0 },
    ];
    expect(zerosOf({ length: 1000, zeros }, 1000)).toEqual([
      { start: 0, length: 150 },
      { start: 300, length: 110 },
    ]);
  });

  it('zeros of parts of pages: written; of whole pages: installed as zeros', () => {
    const bytes = new Uint8Array(80).fill(1);
    expect([
      ...zeroPages(
        [
          { start: 3, length: 4 },
          { start: 15, length: 45 },
        ],
        bytes,
        10,
      ),
    ]).toEqual([0, 0, 1, 1, 1, 1, 0, 0]);
    expect(bytes.indexOf(0)).toBe(3);
    expect([...bytes.subarray(15, 20)]).toEqual([0, 0, 0, 0, 0]);
    expect([...bytes.subarray(20, 60)]).toEqual(new Array(40).fill(1));
  });
});
