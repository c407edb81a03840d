import { openSync, unlinkSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { gpa } from '../../src/api/index.js';
import {
  checkPlaces,
  MADV,
  MAP,
  mapMemory,
  type Mapping,
  type MemoryPlace,
  pageSize,
  ProcessMaps,
  PROT,
  raw,
} from '../../src/linux/index.js';
import { needHugePages } from '../support/huge-pages.js';

const PAGE = pageSize();
const PAGES = 16;
const LENGTH = PAGES * PAGE;

interface Mapped extends MemoryPlace, Disposable {}

let number = 0;

/** A region somewhere in the guest, at a mapping of its own. */
function place(fd: number, at: number, given: { pages?: number; flags?: number } = {}): Mapped {
  const { pages = PAGES, flags = MAP.SHARED } = given;
  const length = pages * PAGE;
  const address = raw.mmap(0, length, PROT.READ | PROT.WRITE, flags, fd, at * PAGE);
  expect(address).toBeGreaterThan(0);
  return {
    range: { start: gpa(number++ * 0x1000_0000), length: BigInt(length) },
    memory: 'shmem',
    address,
    [Symbol.dispose]: () => void raw.munmap(address, length),
  };
}

const named = (mapped: MemoryPlace, fd: number, at: number): MemoryPlace => ({
  ...mapped,
  file: { fd, offset: at * PAGE },
});

const memfd = (pages = PAGES): Mapping => mapMemory({ kind: 'shmem', length: pages * PAGE });
const badRange = (words: string) =>
  expect.objectContaining({ code: 'BAD_RANGE', message: expect.stringContaining(words) as string }) as Error;

describe('regions of one file', () => {
  test('that lie side by side are taken, in any order', () => {
    using file = memfd(2 * PAGES);
    using one = place(file.fd!, 0);
    using two = place(file.fd!, PAGES);
    expect(() => checkPlaces([two, one])).not.toThrow();
    expect(() => checkPlaces([named(two, file.fd!, PAGES), named(one, file.fd!, 0)])).not.toThrow();
  });

  test.each([
    ['the same place', 0, PAGES],
    ['the last page', PAGES - 1, PAGES],
    ['a page in the middle', 7, 1],
  ])('that have %s in common are refused, named or not, by whichever descriptor', (_, at, pages) => {
    using file = memfd(2 * PAGES);
    const again = openSync(`/proc/self/fd/${file.fd!}`, 'r+');
    using one = place(file.fd!, 0);
    using two = place(again, at, { pages });
    const both = badRange('the same place of a memory file');
    expect(() => checkPlaces([one, two])).toThrow(both);
    expect(() => checkPlaces([two, one])).toThrow(both);
    expect(() => checkPlaces([named(one, file.fd!, 0), named(two, again, at)])).toThrow(both);
    raw.close(again);
  });

  test('that reach over several others are compared with all of them', () => {
    using file = memfd(2 * PAGES);
    using all = place(file.fd!, 0, { pages: 2 * PAGES, flags: MAP.PRIVATE });
    using one = place(file.fd!, 2, { pages: 1, flags: MAP.PRIVATE });
    using two = place(file.fd!, PAGES, { pages: 1 });
    expect(() => checkPlaces([all, one])).not.toThrow();
    expect(() => checkPlaces([all, one, two])).toThrow(badRange('the same place of a memory file'));
  });

  test('a place is compared in another process, too, by its number', () => {
    using file = memfd();
    using one = place(file.fd!, 0);
    using two = place(file.fd!, 0);
    expect(() => checkPlaces([one, two], process.pid)).toThrow(badRange('the same place'));
  });
});

test('private memory, huge pages without a file, and files of their own have nothing in common', (context) => {
  using _pool = needHugePages(context, 2, 0x20_0000);
  const kinds = ['anonymous', 'shmem', 'hugetlb', 'hugetlb-shmem'] as const;
  const mappings = kinds.flatMap((kind) => [1, 2].map(() => mapMemory({ kind, length: 0x20_0000 })));
  try {
    const places = mappings.map(({ kind, address, length }, i) => ({
      range: { start: gpa(i * 0x100_0000), length: BigInt(length) },
      memory: kind === 'anonymous' ? kind : ('shmem' as const),
      address,
    }));
    expect(() => checkPlaces(places)).not.toThrow();
  } finally {
    for (const mapping of mappings) mapping.dispose();
  }
});

describe('a region that names a file', () => {
  test('that is not the one mapped, or with a wrong offset, is refused', () => {
    using file = memfd(2 * PAGES);
    using other = memfd(2 * PAGES);
    using mapped = place(file.fd!, 1);
    const wrong = badRange('is not what is mapped');
    expect(() => checkPlaces([named(mapped, file.fd!, 1)])).not.toThrow();
    expect(() => checkPlaces([named(mapped, other.fd!, 1)])).toThrow(wrong);
    expect(() => checkPlaces([named(mapped, file.fd!, 0)])).toThrow(wrong);
  });

  test('and is of other memory, or has a gap, is refused', () => {
    using file = memfd();
    using mapped = place(file.fd!, 0);
    using anonymous = mapMemory({ kind: 'anonymous', length: LENGTH });
    const wrong = badRange('is not what is mapped');
    expect(() => checkPlaces([named({ ...mapped, address: anonymous.address }, file.fd!, 0)])).toThrow(wrong);
    raw.munmap(mapped.address + 3 * PAGE, PAGE);
    expect(() => checkPlaces([named(mapped, file.fd!, 0)])).toThrow(wrong);
  });

  test('whose mapping was split is the same file still', () => {
    using file = memfd();
    using mapped = place(file.fd!, 0);
    raw.madvise(mapped.address + 3 * PAGE, PAGE, MADV.DONTFORK);
    expect(ProcessMaps.read()!.within(mapped.address, LENGTH).length).toBe(3);
    expect(() => checkPlaces([named(mapped, file.fd!, 0)])).not.toThrow();
  });
});

test('a region that says it is anonymous, and is of a shared file, is refused; of a private one it is taken', () => {
  using file = memfd();
  using shared = place(file.fd!, 0);
  using own = place(file.fd!, 0, { flags: MAP.PRIVATE });
  expect(() => checkPlaces([{ ...shared, memory: 'anonymous' }])).toThrow(badRange('anonymous memory'));
  expect(() => checkPlaces([{ ...own, memory: 'anonymous' }])).not.toThrow();
});

test('the maps of a process tell of files only, cut to what is asked', () => {
  const path = `/dev/shm/places ${process.pid}`; // a name with a blank
  const fd = openSync(path, 'w+');
  unlinkSync(path);
  raw.fallocate(fd, 0, 0, LENGTH);
  using mapped = place(fd, 0);
  raw.close(fd);
  const pieces = ProcessMaps.read()!.within(mapped.address + PAGE, 2 * PAGE);
  expect(pieces).toMatchObject([
    { start: mapped.address + PAGE, length: 2 * PAGE, offset: PAGE, shared: true },
  ]);
  using anonymous = mapMemory({ kind: 'anonymous', length: LENGTH });
  expect(ProcessMaps.read()!.within(anonymous.address, LENGTH)).toEqual([]);
  expect(ProcessMaps.read(0x7fff_fff0)).toBeUndefined();
});
