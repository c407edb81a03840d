// A user's program: compiled against the packed library and run. It prints `ok`.
import { strict as assert } from 'node:assert';
import { parseVectors, replayVector } from 'demand-paging/arm64';
import { memoryBackend } from 'demand-paging/backends/memory';
import {
  DemandPagingError,
  ERROR_CODES,
  fileOffset,
  gpa,
  openPager,
  type Gpa,
  type Hva,
  type PageSource,
  type RegionSpec,
} from 'demand-paging';

const PAGE = 4096;
const START = gpa(0x4000_0000);

const region: RegionSpec = {
  gpa: START,
  length: BigInt(4 * PAGE),
  sourceOffset: fileOffset(0),
  memory: 'anonymous',
  pageSize: PAGE,
};

/** Every byte of a page is the page's number plus one. */
const source: PageSource = {
  length: 4 * PAGE,
  synchronous: true,
  read(offset, into) {
    for (let index = 0; index < into.length; index++) into[index] = Math.floor((offset + index) / PAGE) + 1;
    return into.length;
  },
};

async function pageOnDemand(): Promise<void> {
  await using pager = await openPager({ backend: memoryBackend(), regions: [region], source });
  const complete = new Promise<void>((resolve) => pager.once('complete', resolve));
  pager.on('installed', (pages, why) => {
    assert(pages.count > 0);
    const reason: string = why;
    assert(reason.length > 0);
    // @ts-expect-error pages are not text: the listener's arguments have their types
    const text: string = pages;
    assert(text);
  });
  // @ts-expect-error no event has that name
  pager.on('no-such-event', () => {});
  // @ts-expect-error a listener of this event takes pages first
  pager.on('removed', (_pages: string) => {});

  const memory = pager.memory;
  assert(memory);
  assert.equal(memory.isPresent({ start: START, length: BigInt(PAGE) }), false);
  const bytes = await memory.read(gpa(START + BigInt(2 * PAGE)), 2);
  assert.deepEqual([...bytes], [3, 3]);
  await pager.prefetch();
  await complete;
  assert.deepEqual([...memory.readSync(START, 1)], [1]);
}

function refuseMistakes(): void {
  const error = new DemandPagingError('NOT_SUPPORTED', 'not here', { errno: 22 });
  assert(error instanceof Error);
  assert.equal(error.code, 'NOT_SUPPORTED');
  assert.equal(error.errno, 22);
  assert(ERROR_CODES.includes(error.code));
  // @ts-expect-error a code outside the closed union
  assert(!ERROR_CODES.includes('NO_SUCH_CODE'));
  // @ts-expect-error a guest-physical address is no host-virtual one
  const wrong: Hva = START;
  const right: Gpa = START;
  assert.equal(wrong as bigint, right as bigint);
}

function replayNothing(): void {
  assert.equal(typeof replayVector, 'function');
  assert.throws(() => parseVectors('{"not": "a vector"}', 'here'), { code: 'BAD_IMAGE' });
}

await pageOnDemand();
refuseMistakes();
replayNothing();
process.stdout.write('ok\n');
