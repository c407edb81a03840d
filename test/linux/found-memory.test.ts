import { spawnSync } from 'node:child_process';
import { ftruncateSync, readFileSync } from 'node:fs';
import koffi from 'koffi';
import { describe, expect, test } from 'vitest';
import {
  discardMemory,
  type FoundMemoryOptions,
  FoundMemory,
  MADV,
  MAP,
  mapMemory,
  type Mapping,
  pageSize,
  PROT,
  raw,
  UFFD_REGISTER_MODE,
  Userfaultfd,
} from '../../src/linux/index.js';
import { needHugePages } from '../support/huge-pages.js';

const PAGE = pageSize();
const PAGES = 16;
const HUGE = 0x20_0000;
const mlock = koffi.load(null).func('mlock', 'int', ['uintptr_t', 'size_t']);

/** The pages of runs of bytes. */
function pagesOf(options: FoundMemoryOptions): number[] {
  const found = new FoundMemory(options);
  try {
    return found.runs().flatMap(({ start, length }) => {
      const count = length / options.pageSize;
      return Array.from({ length: count }, (_, i) => start / options.pageSize + i);
    });
  } finally {
    found.close();
  }
}

const privateMemory = ({ address, length }: Mapping): FoundMemoryOptions => ({
  address,
  length,
  pageSize: PAGE,
  shared: false,
});

/** A memory file, named or not. */
const sharedMemory = (mapping: Mapping, named: boolean): FoundMemoryOptions => ({
  ...privateMemory(mapping),
  shared: true,
  file: named ? { fd: mapping.fd!, offset: 0 } : undefined,
});

describe('private memory', () => {
  test('fresh memory has nothing; written and merely read pages are found', () => {
    using memory = mapMemory({
      kind: 'anonymous',
      length: PAGES * PAGE,
      transparentHugePages: false,
    });
    expect(pagesOf(privateMemory(memory))).toEqual([]);
    memory.bytes(3 * PAGE, 2 * PAGE).fill(1);
    expect(memory.bytes(9 * PAGE, 1)[0]).toBe(0); // the zero page
    expect(pagesOf(privateMemory(memory))).toEqual([3, 4, 9]);
  });

  test('populated, locked and huge pages are found, and discarded', () => {
    for (const how of ['populated', 'locked', 'huge'] as const) {
      using memory = mapMemory({
        kind: 'anonymous',
        length: 2 * HUGE,
        populate: how === 'populated',
        transparentHugePages: how === 'huge',
      });
      if (how === 'locked') expect(mlock(memory.address, memory.length)).toBe(0);
      if (how === 'huge') memory.bytes(0, 2 * HUGE).fill(1);
      const everything = Array.from({ length: (2 * HUGE) / PAGE }, (_, page) => page);
      expect(pagesOf(privateMemory(memory)), how).toEqual(everything);
      discardMemory({ address: memory.address, length: memory.length, memory: 'anonymous' });
      expect(pagesOf(privateMemory(memory)), how).toEqual([]);
    }
  });

  test('poison is found', (context) => {
    using memory = mapMemory({ kind: 'anonymous', length: PAGES * PAGE });
    using uffd = Userfaultfd.open();
    uffd.register(memory.address, memory.length, UFFD_REGISTER_MODE.MISSING);
    if (uffd.port.poison(memory.address + 5 * PAGE, PAGE) !== 0)
      context.skip('no UFFDIO_POISON before Linux 6.6');
    expect(pagesOf(privateMemory(memory))).toEqual([5]);
    discardMemory({ address: memory.address, length: memory.length, memory: 'anonymous' });
    expect(pagesOf(privateMemory(memory))).toEqual([]);
  });

  test('swapped out pages are found', (context) => {
    if (/^SwapTotal:\s+0 kB$/m.test(readFileSync('/proc/meminfo', 'utf8'))) context.skip('no swap here');
    using memory = mapMemory({ kind: 'anonymous', length: PAGES * PAGE, transparentHugePages: false });
    memory.bytes(0, PAGES * PAGE).fill(1);
    raw.madvise(memory.address, memory.length, MADV.PAGEOUT);
    expect(pagesOf(privateMemory(memory)).length).toBe(PAGES);
  });

  test('many runs are found: more than one scan tells', () => {
    const count = 3000;
    using memory = mapMemory({ kind: 'anonymous', length: 2 * count * PAGE, transparentHugePages: false });
    for (let page = 0; page < 2 * count; page += 2) memory.bytes(page * PAGE, 1)[0] = 1;
    expect(pagesOf(privateMemory(memory))).toEqual(Array.from({ length: count }, (_, i) => 2 * i));
  });

  test('pages of several base pages are found where one of them has something', () => {
    using memory = mapMemory({ kind: 'anonymous', length: PAGES * PAGE, transparentHugePages: false });
    for (const page of [1, 6, 7]) memory.bytes(page * PAGE, 1)[0] = 1;
    expect(pagesOf({ ...privateMemory(memory), pageSize: 4 * PAGE })).toEqual([0, 1]);
  });
});

describe.each([
  ['of a known file', true],
  ['whose file is not known', false],
] as const)('shared memory %s', (_, named) => {
  test('what another mapping has written is found, and what is only set aside', () => {
    using memory = mapMemory({ kind: 'shmem', length: PAGES * PAGE });
    expect(pagesOf(sharedMemory(memory, named))).toEqual([]);
    using other = memory.alias();
    other.bytes(3 * PAGE, 1)[0] = 1;
    expect(pagesOf(sharedMemory(memory, named))).toEqual([3]);
    // As preallocation does: it reads as zeros, no fault tells of it, and a search for holes passes over it.
    expect(raw.fallocate(memory.fd!, 0, 5 * PAGE, 2 * PAGE)).toBe(0);
    expect(pagesOf(sharedMemory(memory, named))).toEqual([3, 5, 6]);
    const file = named ? { fd: memory.fd!, offset: 0 } : undefined;
    discardMemory({ address: memory.address, length: memory.length, memory: 'shmem', file });
    expect(pagesOf(sharedMemory(memory, named))).toEqual([]);
  });

  test('it is looked at again while it is registered', () => {
    using memory = mapMemory({ kind: 'shmem', length: PAGES * PAGE });
    using other = memory.alias();
    const found = new FoundMemory(sharedMemory(memory, named));
    using uffd = Userfaultfd.open();
    uffd.register(memory.address, memory.length, UFFD_REGISTER_MODE.MISSING);
    other.bytes(2 * PAGE, 1)[0] = 1;
    expect(found.runs()).toEqual([{ start: 2 * PAGE, length: PAGE }]);
    other.bytes(3 * PAGE, 1)[0] = 1;
    expect(found.runs()).toEqual([{ start: 2 * PAGE, length: 2 * PAGE }]);
    other.punchHole(2 * PAGE, PAGE);
    expect(found.runs()).toEqual([{ start: 3 * PAGE, length: PAGE }]);
    found.close();
  });
});

test('a part of a file is looked at, and nothing beside it', () => {
  using whole = mapMemory({ kind: 'shmem', length: PAGES * PAGE });
  for (const page of [1, 8, 15]) whole.bytes(page * PAGE, 1)[0] = 1;
  const address = whole.address + 4 * PAGE;
  const file = { fd: whole.fd!, offset: 4 * PAGE };
  expect(pagesOf({ address, length: 8 * PAGE, pageSize: PAGE, shared: true, file })).toEqual([4]);
});

test('memory that is locked is not filled by looking at it', () => {
  using memory = mapMemory({ kind: 'shmem', length: PAGES * PAGE });
  expect(mlock(memory.address, memory.length)).toBe(0);
  memory.punchHole(8 * PAGE);
  for (const named of [false, true])
    expect(pagesOf(sharedMemory(memory, named))).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
});

test('locked memory of no known file is refused without the right to open it by name, and not filled', (context) => {
  const script = new URL('./fixtures/locked-memory.mjs', import.meta.url).pathname;
  const without = '-sys_admin,-checkpoint_restore';
  const options = ['--bounding-set', without, '--inh-caps', without, process.execPath, script];
  const { error, status, stdout, stderr } = spawnSync('setpriv', options, { encoding: 'utf8' });
  if (error) return context.skip('no setpriv here');
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const found = [{ start: PAGE, length: PAGE }];
  expect(stdout.trim().split('\n')).toEqual([JSON.stringify(found), '"NOT_SUPPORTED"', 'false']);
});

test('memory that lies in several files is looked at in each', () => {
  using one = mapMemory({ kind: 'shmem', length: PAGES * PAGE });
  using two = mapMemory({ kind: 'shmem', length: PAGES * PAGE });
  const half = (PAGES / 2) * PAGE;
  const flags = MAP.SHARED | MAP.FIXED;
  const second = one.address + half;
  expect(raw.mmap(second, half, PROT.READ | PROT.WRITE, flags, two.fd!, 2 * PAGE)).toBe(second);
  using others = one.alias();
  others.bytes(3 * PAGE, 1)[0] = 1;
  others.bytes(12 * PAGE, 1)[0] = 1; // no longer mapped there
  two.bytes(3 * PAGE, 1)[0] = 1;
  raw.fallocate(two.fd!, 0, 4 * PAGE, PAGE);
  expect(pagesOf(sharedMemory(one, false))).toEqual([3, PAGES / 2 + 1, PAGES / 2 + 2]);
});

test.for(['shmem', 'hugetlb-shmem'] as const)(
  'what a file has shows through where it is mapped privately (%s), and is found, set aside or written',
  (kind, context) => {
    const unit = kind === 'shmem' ? PAGE : HUGE;
    using _pool = kind === 'shmem' ? undefined : needHugePages(context, 4, HUGE);
    using file = mapMemory({ kind, length: 4 * unit });
    const address = raw.mmap(0, 4 * unit, PROT.READ | PROT.WRITE, MAP.PRIVATE | MAP.NORESERVE, file.fd!, 0);
    expect(address).toBeGreaterThan(0);
    for (const named of [false, true]) {
      const options: FoundMemoryOptions = {
        address,
        length: 4 * unit,
        pageSize: unit,
        hugePageSize: kind === 'shmem' ? undefined : unit,
        shared: false,
        file: named ? { fd: file.fd!, offset: 0 } : undefined,
      };
      file.punchHole();
      expect(pagesOf(options)).toEqual([]);
      file.bytes(unit, 1)[0] = 1;
      expect(raw.fallocate(file.fd!, 0, 3 * unit, unit)).toBe(0);
      expect(pagesOf(options)).toEqual([1, 3]);
      const found = new FoundMemory(options);
      expect(found.showsFile).toBe(true);
      found.close();
    }
    raw.munmap(address, 4 * unit);
  },
);

test('a file that is shorter than the memory that maps it is BAD_RANGE', () => {
  using memory = mapMemory({ kind: 'shmem', length: PAGES * PAGE });
  ftruncateSync(memory.fd!, 8 * PAGE);
  expect(() => pagesOf(sharedMemory(memory, false))).toThrow(expect.objectContaining({ code: 'BAD_RANGE' }));
});

test('memory that is not mapped is BAD_RANGE', () => {
  const memory = mapMemory({ kind: 'anonymous', length: PAGES * PAGE });
  memory.dispose();
  expect(() => pagesOf(privateMemory(memory))).toThrow(expect.objectContaining({ code: 'BAD_RANGE' }));
});

test.for(['hugetlb', 'hugetlb-shmem'] as const)('huge pages (%s) are found one by one', (kind, context) => {
  using _pool = needHugePages(context, 4, HUGE);
  for (const named of kind === 'hugetlb' ? [false] : [true, false]) {
    using memory = mapMemory({ kind, length: 4 * HUGE });
    const file = named ? { fd: memory.fd!, offset: 0 } : undefined;
    const options = { ...privateMemory(memory), pageSize: HUGE, hugePageSize: HUGE, shared: true, file };
    expect(pagesOf(options)).toEqual([]);
    memory.bytes(2 * HUGE, 1)[0] = 1;
    expect(pagesOf(options)).toEqual([2]);
    if (memory.fd !== undefined) {
      using other = memory.alias();
      other.bytes(0, 1)[0] = 1;
      expect(pagesOf(options)).toEqual([0, 2]);
    }
    discardMemory({ address: memory.address, length: memory.length, memory: 'hugetlb', file });
    expect(pagesOf(options)).toEqual([]);
  }
});
