import { expect, test } from 'vitest';
import { gpa, type Pager, type PageRange } from '../../../src/api/index.js';
import { ERRNO, MADV, PROT, raw } from '../../../src/linux/index.js';
import { PAGE, Scene, region, skipWithoutUserfaultfd } from '../userfaultfd/scene.js';
import { everyPage, firstBytes, openGuest, pages, PAGES } from './guest.js';

skipWithoutUserfaultfd();

/** Ways to treat pages 8 to 11 differently, so that the kernel keeps them as a mapping of their own. */
const SPLITS = [
  ['left out of core dumps', (start: number) => raw.madvise(start, 4 * PAGE, MADV.DONTDUMP)],
  ['made read-only', (start: number) => raw.mprotect(start, 4 * PAGE, PROT.READ)],
] as const;

async function splitGuest(split: (start: number) => number): Promise<{ pager: Pager; lost: PageRange[] }> {
  const pager = await openGuest();
  const lost: PageRange[] = [];
  for (const kind of ['removed', 'unmapped'] as const) pager.on(kind, (range) => lost.push(range));
  expect(split(Number(pager.layout.hvaOf(8)))).toBe(0);
  return { pager, lost };
}

test.each(SPLITS)('memory of which a part is %s comes as if it were whole', async (_, split) => {
  const { pager, lost } = await splitGuest(split);
  expect(pager.memory!.readBlocking(gpa(2 * PAGE), 1)).toEqual(Uint8Array.of(3)); // a window over the border
  await pager.ensure(pages(0, PAGES));
  expect(pager.complete).toBe(true);
  expect(firstBytes(pager)).toEqual(everyPage);
  await pager.close();
  expect(lost).toEqual([]);
});

test.each(SPLITS)('memory of which a part is %s is poisoned whole', async (_, split) => {
  const { pager, lost } = await splitGuest(split);
  await pager.poison(pages(0, PAGES));
  expect(Array.from({ length: PAGES }, (_, page) => pager.states.stateOf(page))).toEqual(
    new Array(PAGES).fill('poisoned'),
  );
  expect(() => pager.memory!.readBlocking(gpa(20 * PAGE), 1)).toThrow(
    expect.objectContaining({ code: 'PAGE_POISONED' }),
  );
  await pager.close();
  expect(lost).toEqual([]);
});

test('an unannounced hole: its pages are lost, no others', async () => {
  const pager = await openGuest({ backend: { events: ['remove'] } });
  const unmapped: number[] = [];
  pager.on('unmapped', ({ first, count }) =>
    unmapped.push(...Array.from({ length: count }, (_, i) => first + i)),
  );
  expect(raw.munmap(Number(pager.layout.hvaOf(8)), 4 * PAGE)).toBe(0);
  await expect(pager.ensure(pages(0, PAGES))).rejects.toMatchObject({ code: 'MEMORY_GONE' });
  await pager.ensure(pages(0, 8));
  await pager.ensure(pages(12, PAGES - 12));
  expect(unmapped).toEqual([8, 9, 10, 11]);
  expect(pager.memory!.readBlocking(gpa(7 * PAGE), 1)).toEqual(Uint8Array.of(8));
  expect(pager.memory!.readBlocking(gpa(12 * PAGE), 1)).toEqual(Uint8Array.of(13));
  await pager.close();
});

test('a port says which page is gone, what is before it is done, and what is behind it can be', async () => {
  await using scene = await Scene.open([region(16)], { events: ['remove'] });
  expect(raw.munmap(scene.at(5), 2 * PAGE)).toBe(0);
  const rest = (first: number) => ({ first, count: 16 - first });
  for (const gone of [5, 6]) {
    const first = gone === 5 ? 0 : gone;
    expect(scene.resolve({ verb: 'poison', pages: rest(first) })).toEqual({
      outcome: 'gone',
      done: gone - first,
      errno: ERRNO.ENOENT,
    });
  }
  expect(scene.resolve({ verb: 'poison', pages: rest(7) })).toEqual({
    outcome: 'installed',
    done: 9,
    errno: 0,
  });
});
