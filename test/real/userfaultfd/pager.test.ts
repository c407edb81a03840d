import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { fileOffset, gpa, hva, openPager, type Pager, type PagerOptions } from '../../../src/api/index.js';
import { userfaultfd, type UserfaultfdBackendOptions } from '../../../src/backends/userfaultfd/index.js';
import { MADV, mapMemory } from '../../../src/linux/index.js';
import { file } from '../../../src/sources/index.js';
import { needHugePages } from '../../support/huge-pages.js';
import { Actor } from './actor.js';
import { HUGE, PAGE, region, skipWithoutUserfaultfd } from './scene.js';

skipWithoutUserfaultfd();

const folder = mkdtempSync(join(tmpdir(), 'pager-'));
afterAll(() => rmSync(folder, { recursive: true }));

const PAGES = 512;
/** A page's bytes say which page it is, and where in it they are. */
const image = new Uint8Array(PAGES * PAGE).map((_, i) => ((i >>> 12) * 7 + i) & 0xff || 1);
const path = join(folder, 'image');
writeFileSync(path, image);

interface Guest extends AsyncDisposable {
  readonly pager: Pager;
  readonly actor: Actor;
  at(page: number): number;
  /** Everything, through the mapping. */
  all(): Uint8Array;
}

async function guest(
  backend: UserfaultfdBackendOptions,
  options: Partial<PagerOptions> & { readonly memory?: 'anonymous' | 'shmem' | 'hugetlb' } = {},
): Promise<Guest> {
  const { memory = 'anonymous', ...rest } = options;
  const regions = [region(memory === 'hugetlb' ? (PAGES * PAGE) / HUGE : PAGES, memory)];
  const pager = await openPager({ backend: userfaultfd(backend), regions, source: file(path), ...rest });
  const actor = await Actor.start();
  return {
    pager,
    actor,
    at: (page) => Number(pager.layout.hvaOf(page)),
    all: () => pager.memory!.readBlocking(gpa(0), image.length),
    async [Symbol.asyncDispose]() {
      await pager.close();
      await actor[Symbol.asyncDispose]();
    },
  };
}

const first = (page: number): number => image[page * PAGE]!;

describe.each([
  ['copy into anonymous memory', {}, 'anonymous', 'block'],
  ['copy, spinning', {}, 'anonymous', 'spin'],
  ['copy into shmem', {}, 'shmem', 'block'],
  ['continue', { install: 'continue' }, 'shmem', 'block'],
  ['move', { install: 'move' }, 'anonymous', 'block'],
] as const)('%s', (_, backend, memory, wait) => {
  test('every byte is the image’s; what is discarded reads as zeros or is fetched again', async () => {
    await using g = await guest(backend, { memory, policy: { wait, faultAroundPages: 4 } });
    const sum = g.actor.walk(g.at(0), PAGE, PAGES);
    expect(await sum).toBe(Array.from({ length: PAGES }, (_, page) => first(page)).reduce((a, b) => a + b));
    expect(Buffer.compare(g.all(), image)).toBe(0);
    const range = (page: number, count: number) => [
      { start: gpa(page * PAGE), length: BigInt(count * PAGE) },
    ];
    await g.pager.discard(range(8, 2), { then: 'zero' });
    expect([await g.actor.load(g.at(8)), await g.actor.load(g.at(9)), await g.actor.load(g.at(10))]).toEqual([
      0,
      0,
      first(10),
    ]);
    await g.actor.store(g.at(20), first(20) ^ 0xff);
    await g.pager.discard(range(20, 3), { then: 'refetch' });
    expect(g.pager.states.isPresent(21)).toBe(false);
    expect([await g.actor.load(g.at(20)), await g.actor.load(g.at(22))]).toEqual([first(20), first(22)]);
    const statistics = g.pager.statistics();
    expect(statistics).toMatchObject({
      presentPages: expect.any(Number) as number,
      vanishedPages: 0,
      sourceFailures: 0,
    });
  });
});

test('huge pages', async (context) => {
  using _pool = needHugePages(context, 2, HUGE);
  await using g = await guest({}, { memory: 'hugetlb' });
  expect(await g.actor.load(g.at(0) + 5 * PAGE)).toBe(first(5));
  await g.pager.discard([{ start: gpa(0), length: BigInt(HUGE) }], { then: 'zero' });
  expect(await g.actor.load(g.at(0) + 5 * PAGE)).toBe(0);
});

test('what the guest drops itself is zeros from then on', async () => {
  await using g = await guest({});
  expect(await g.actor.load(g.at(3))).toBe(first(3));
  expect(await g.actor.call('madvise', g.at(3), PAGE, MADV.DONTNEED)).toBe(0);
  expect(await g.actor.load(g.at(3))).toBe(0);
  expect(await g.actor.load(g.at(4))).toBe(first(4));
});

test('memory that moves is served where it went', async () => {
  await using g = await guest({}, { policy: { faultAroundPages: 1 } });
  const { actor } = g;
  expect(await actor.load(g.at(1))).toBe(first(1));
  using place = mapMemory({ kind: 'reserved', length: PAGES * PAGE });
  const to = place.address;
  place.dispose();
  const moved = new Promise<number>((resolve) => g.pager.once('remapped', (_, to) => resolve(to)));
  const at = await actor.call('mremap', g.at(0), PAGES * PAGE, PAGES * PAGE, 3, to);
  expect([at, await moved]).toEqual([to, to]);
  expect(await actor.load(at + PAGE)).toBe(first(1));
  expect(await actor.load(at + 7 * PAGE)).toBe(first(7));
  expect(g.pager.memory!.readBlocking(gpa(9 * PAGE), 1)[0]).toBe(first(9));
});

test('two shards page at once, threads are known by name', async () => {
  const regions = [region(16384)];
  const long = join(folder, 'long');
  writeFileSync(long, Buffer.alloc(16384 * PAGE, 0x5c));
  const pager = await openPager({ backend: userfaultfd({ shards: 2 }), regions, source: file(long) });
  const actors = [await Actor.start(), await Actor.start()];
  const base = Number(pager.layout.hvaOf(0));
  await pager.nameThread(actors[0]!.thread, 'vcpu', 0);
  const sums = await Promise.all([
    actors[0]!.walk(base, 64 * PAGE, 128),
    actors[1]!.walk(base + 8192 * PAGE, 64 * PAGE, 128),
  ]);
  expect(sums).toEqual([128 * 0x5c, 128 * 0x5c]);
  expect(pager.statistics().vcpuFaults).toBe(128);
  expect(pager.statistics().missingFaults).toBe(256);
  await pager.close();
  for (const actor of actors) await actor[Symbol.asyncDispose]();
});

test('a source cut short while paging is loud, and ends nobody', async () => {
  const short = join(folder, 'short');
  writeFileSync(short, image);
  const pager = await openPager({
    backend: userfaultfd(),
    regions: [region(PAGES)],
    source: file(short, { length: image.length }),
    policy: { onSourceFailure: 'poison', retries: 0, faultAroundPages: 1 },
  });
  const actor = await Actor.start();
  const at = (page: number): number => Number(pager.layout.hvaOf(page));
  expect(await actor.kernelLoad(at(100))).toBe(first(100));
  writeFileSync(short, image.subarray(0, 10 * PAGE));
  expect(await actor.kernelLoad(at(200))).toBeLessThan(0);
  expect(await actor.kernelLoad(at(5))).toBe(first(5));
  expect(() => pager.memory!.readBlocking(gpa(200 * PAGE), 8)).toThrow(
    expect.objectContaining({ code: 'PAGE_POISONED' }),
  );
  await actor[Symbol.asyncDispose]();
  await pager.close();
});

test('nothing is left after many pagers', async () => {
  await (await guest({}))[Symbol.asyncDispose]();
  const before = readdirSync('/proc/self/fd').length;
  for (let round = 0; round < 5; round++) {
    await using g = await guest({ shards: 2 }, { memory: 'shmem' });
    expect(await g.actor.load(g.at(round))).toBe(first(round));
  }
  expect(readdirSync('/proc/self/fd').length).toBe(before);
});

// The kernel keeps the protection of a page of shared memory that is not there, and poison does not go where
// it is.
test.each(['copy', 'continue'] as const)(
  'closed by poison, pages that are missing and write-protected read as nothing at all: %s',
  async (install) => {
    using memory = mapMemory({ kind: 'shmem', length: 16 * PAGE });
    const place = { hva: hva(memory.address), file: { fd: memory.fd!, offset: fileOffset(0) } };
    const faults = install === 'copy' ? (['missing'] as const) : (['missing', 'minor'] as const);
    const pager = await openPager({
      backend: userfaultfd({ install, faults: [...faults, 'write-protect'] }),
      regions: [region(16, 'shmem', place)],
      source: file(path),
      policy: { faultAroundPages: 1 },
    });
    await using actor = await Actor.start();
    const pages = (page: number, count: number) => [
      { start: gpa(page * PAGE), length: BigInt(count * PAGE) },
    ];
    await pager.writeProtect(pages(0, 16));
    await pager.ensure(pages(4, 4));
    await pager.discard(pages(6, 4), { then: 'refetch' });
    expect(await actor.kernelLoad(memory.address + 4 * PAGE)).toBe(first(4));
    await pager.close();
    for (const page of [0, 3, 6, 7, 9, 15])
      expect(await actor.kernelLoad(memory.address + page * PAGE), `page ${page}`).toBeLessThan(0);
    for (const page of [4, 5])
      expect(await actor.kernelLoad(memory.address + page * PAGE), `page ${page}`).toBe(first(page));
  },
);
