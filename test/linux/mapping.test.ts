import { describe, expect, test } from 'vitest';
import { Worker } from 'node:worker_threads';
import { once } from 'node:events';
import {
  defaultHugePageSize,
  ERRNO,
  fillMemory,
  hugePagePool,
  load8,
  loadWord,
  Mapping,
  mapMemory,
  pageSize,
  PROT,
  readMemory,
  store8,
  storeWord,
  WINDOW_LIMIT,
  writeMemory,
  type MappingKind,
} from '../../src/linux/index.js';
import { needHugePages } from '../support/huge-pages.js';

const PAGE = pageSize();

describe('each kind of memory', () => {
  const base: readonly MappingKind[] = ['anonymous', 'shmem'];

  test.each(base)('%s reads as zeros, keeps what is written, and counts residency', (kind) => {
    using memory = mapMemory({
      kind,
      length: 4 * PAGE,
      transparentHugePages: kind === 'anonymous' ? false : undefined,
    });
    expect(memory.address % PAGE).toBe(0);
    expect(memory.hva).toBe(BigInt(memory.address));
    expect([...memory.residency()]).toEqual([0, 0, 0, 0]);
    memory.bytes(2 * PAGE, 1)[0] = 0xab;
    expect([...memory.residency()]).toEqual([0, 0, 1, 0]);
    expect([...memory.residency(2 * PAGE, PAGE)]).toEqual([1]);
    expect(load8(memory.address + 2 * PAGE)).toBe(0xab);
    expect(memory.shared).toBe(kind === 'shmem');
  });

  test('a private mapping has no alias and no hole', () => {
    using memory = mapMemory({ kind: 'anonymous', length: PAGE });
    expect(() => memory.alias()).toThrow(expect.objectContaining({ code: 'NOT_SUPPORTED' }));
    expect(() => memory.punchHole()).toThrow(expect.objectContaining({ code: 'NOT_SUPPORTED' }));
  });

  test('a reservation cannot be read, until it is made readable', () => {
    using memory = mapMemory({ kind: 'reserved', length: 2 ** 40 });
    using into = mapMemory({ kind: 'anonymous', length: PAGE });
    const far = memory.address + memory.length - PAGE;
    expect(readMemory(into.address, far, 8)).toBe(-ERRNO.EFAULT);
    memory.protect(PROT.READ | PROT.WRITE, memory.length - PAGE, PAGE);
    expect(readMemory(into.address, far, 8)).toBe(8);
    expect(memory.bytes(memory.length - PAGE, 8)).toEqual(new Uint8Array(8));
  });

  test('an address that is taken is refused, not replaced', () => {
    using memory = mapMemory({ kind: 'anonymous', length: PAGE });
    const { address } = memory;
    const again = (): unknown => mapMemory({ kind: 'anonymous', length: PAGE, address });
    expect(again).toThrow(expect.objectContaining({ code: 'KERNEL', errno: ERRNO.EEXIST }));
  });

  test.each([0, -PAGE, 1.5, Number.NaN])('length %d is a RangeError', (length) => {
    expect(() => mapMemory({ kind: 'anonymous', length })).toThrow(RangeError);
  });

  test('a length that is no multiple of the page size is BAD_ALIGNMENT', () => {
    const odd = (): unknown => mapMemory({ kind: 'anonymous', length: PAGE + 1 });
    expect(odd).toThrow(expect.objectContaining({ code: 'BAD_ALIGNMENT' }));
  });
});

describe('shared memory', () => {
  test('an alias shows the same bytes and outlives the first mapping', () => {
    const memory = mapMemory({ kind: 'shmem', length: 2 * PAGE });
    using alias = memory.alias();
    memory.bytes()[PAGE] = 7;
    expect(alias.bytes(PAGE, 1)[0]).toBe(7);
    expect(alias.fd).not.toBe(memory.fd);
    memory.dispose();
    expect(alias.bytes(PAGE, 1)[0]).toBe(7);
    alias.punchHole(PAGE, PAGE);
    expect(alias.bytes(PAGE, 1)[0]).toBe(0);
  });

  test('a memory file can be mapped again from its descriptor', () => {
    using memory = mapMemory({ kind: 'shmem', length: 2 * PAGE });
    memory.bytes()[PAGE] = 9;
    const { fd } = memory.alias(); // the alias is not disposed of: its descriptor is taken over below
    using again = mapMemory({ kind: 'file', length: PAGE, fd: fd!, fileOffset: PAGE });
    expect(again.bytes(0, 1)[0]).toBe(9);
  });
});

describe('windows', () => {
  test('are over the memory itself and are checked', () => {
    using memory = mapMemory({ kind: 'anonymous', length: 2 * PAGE });
    store8(memory.address + 5, 0x55);
    expect(memory.bytes(5, 1)[0]).toBe(0x55);
    expect(memory.bytes(2 * PAGE)).toHaveLength(0);
    for (const [offset, length] of [
      [-1, 1],
      [0, 2 * PAGE + 1],
      [2 * PAGE, 1],
      [0.5, 1],
      [0, Number.NaN],
    ] as const) {
      expect(() => memory.bytes(offset, length), `${offset}, ${length}`).toThrow(RangeError);
    }
  });

  test('reach across the seam of two underlying views, in memory far longer than one view may be', () => {
    using memory = mapMemory({ kind: 'anonymous', length: 6 * WINDOW_LIMIT });
    const at = 3 * WINDOW_LIMIT - 8;
    storeWord(memory.address + at, 0x0102030405);
    storeWord(memory.address + at + 8, 0x1112131415);
    const window = memory.bytes(at, 16);
    expect(Buffer.from(window).toString('hex')).toBe('05040302010000001514131211000000');
    expect(memory.bytes(memory.length - 8, 8)).toEqual(new Uint8Array(8));
    expect(() => memory.bytes(0, WINDOW_LIMIT + 1)).toThrow(RangeError);
  });

  test('are emptied when the mapping is disposed of, instead of crashing the process', () => {
    const memory = mapMemory({ kind: 'anonymous', length: PAGE });
    const window = memory.bytes(0, 16);
    window.fill(1);
    memory.dispose();
    memory.dispose();
    expect(memory.closed).toBe(true);
    expect(window).toHaveLength(0);
    expect(window[3]).toBeUndefined();
    window[3] = 1; // a store into an emptied window goes nowhere
    expect(() => memory.bytes(0, 1)).toThrow(expect.objectContaining({ code: 'CLOSED' }));
    expect(() => memory.residency()).toThrow(expect.objectContaining({ code: 'CLOSED' }));
  });

  test('are emptied without touching the memory: that of a reservation would crash the process', () => {
    const memory = mapMemory({ kind: 'reserved', length: PAGE });
    const window = memory.bytes();
    memory.dispose();
    expect(window).toHaveLength(0);
  });

  test('of a borrowed mapping die with it, and leave the memory alone', () => {
    using memory = mapMemory({ kind: 'anonymous', length: PAGE });
    const borrowed = Mapping.borrow(structuredClone(memory.token));
    const window = borrowed.bytes();
    window[0] = 3;
    borrowed.dispose();
    expect(window).toHaveLength(0);
    expect(memory.bytes(0, 1)[0]).toBe(3);
  });
});

describe('changing a mapping', () => {
  test('DONTNEED drops private pages; they read as zeros', () => {
    using memory = mapMemory({ kind: 'anonymous', length: 2 * PAGE, transparentHugePages: false });
    memory.bytes().fill(1);
    memory.advise('DONTNEED', PAGE, PAGE);
    expect([...memory.residency()]).toEqual([1, 0]);
    expect([memory.bytes()[0], memory.bytes()[PAGE]]).toEqual([1, 0]);
  });

  test('REMOVE drops shared pages from the file', () => {
    using memory = mapMemory({ kind: 'shmem', length: 2 * PAGE });
    using alias = memory.alias();
    memory.bytes().fill(1);
    memory.advise('REMOVE', 0, PAGE);
    expect([...alias.residency()]).toEqual([0, 1]);
  });

  test('POPULATE_WRITE makes pages resident', () => {
    using memory = mapMemory({ kind: 'anonymous', length: 4 * PAGE, transparentHugePages: false });
    memory.advise('POPULATE_WRITE', PAGE, 2 * PAGE);
    expect([...memory.residency()]).toEqual([0, 1, 1, 0]);
  });

  test('advice the memory does not take is KERNEL with EINVAL', () => {
    using memory = mapMemory({ kind: 'anonymous', length: PAGE });
    expect(() => memory.advise('REMOVE')).toThrow(
      expect.objectContaining({ code: 'KERNEL', errno: ERRNO.EINVAL, syscall: 'madvise' }),
    );
  });

  test('remap moves the contents and retires the old object', () => {
    const memory = mapMemory({ kind: 'anonymous', length: PAGE });
    const window = memory.bytes();
    window[1] = 0x21;
    using target = mapMemory({ kind: 'reserved', length: 4 * PAGE });
    using moved = memory.remap({ length: 2 * PAGE, to: target.address + PAGE });
    expect(moved.address).toBe(target.address + PAGE);
    expect(moved.bytes()[1]).toBe(0x21);
    expect(window).toHaveLength(0);
    expect(() => memory.bytes()).toThrow(expect.objectContaining({ code: 'CLOSED' }));
  });

  test('protection against writing holds for kernel accesses, and they say EFAULT', () => {
    using memory = mapMemory({ kind: 'anonymous', length: PAGE });
    using source = mapMemory({ kind: 'anonymous', length: PAGE });
    memory.protect(PROT.READ);
    expect(writeMemory(memory.address, source.address, 8)).toBe(-ERRNO.EFAULT);
    memory.protect(PROT.READ | PROT.WRITE);
    fillMemory(source.address, 0x31, 8);
    expect(writeMemory(memory.address, source.address, 8)).toBe(8);
    expect(memory.bytes(0, 8)).toEqual(new Uint8Array(8).fill(0x31));
  });
});

describe('huge page pool', () => {
  test('mapping without pages is NO_HUGE_PAGES and names the setting', (context) => {
    const pool = hugePagePool();
    if (!pool) return context.skip('this kernel has no hugetlb pages');
    const greedy = (): unknown => mapMemory({ kind: 'hugetlb', length: (pool.free + 1) * pool.pageSize });
    expect(greedy).toThrow(expect.objectContaining({ code: 'NO_HUGE_PAGES', errno: ERRNO.ENOMEM }));
    expect(greedy).toThrow(`hugepages-${pool.pageSize / 1024}kB/nr_hugepages`);
  });

  test('a reservation is given back', (context) => {
    const before = hugePagePool();
    needHugePages(context, 1)[Symbol.dispose]();
    expect(hugePagePool()).toEqual(before);
  });

  for (const kind of ['hugetlb', 'hugetlb-shmem'] as const) {
    test(`${kind} memory takes pages from the pool and gives them back`, (context) => {
      using _pool = needHugePages(context, 2);
      const size = defaultHugePageSize()!;
      const before = hugePagePool()!.free;
      const memory = mapMemory({ kind, length: 2 * size });
      expect(memory.pageSize).toBe(size);
      expect(memory.address % size).toBe(0);
      memory.bytes(size, 1)[0] = 1;
      expect(hugePagePool()!.free).toBe(before - 1);
      expect(new Set(memory.residency(size, size))).toEqual(new Set([1]));
      expect(new Set(memory.residency(0, size))).toEqual(new Set([0]));
      memory.dispose();
      expect(hugePagePool()!.free).toBe(before);
    });
  }

  test('a length in base pages is BAD_ALIGNMENT for huge ones', (context) => {
    if (!hugePagePool()) context.skip('this kernel has no hugetlb pages');
    const small = (): unknown => mapMemory({ kind: 'hugetlb', length: PAGE });
    expect(small).toThrow(expect.objectContaining({ code: 'BAD_ALIGNMENT' }));
  });
});

test('another isolate loads the seam for itself and sees the same memory', async () => {
  using memory = mapMemory({ kind: 'anonymous', length: PAGE });
  memory.bytes()[8] = 0x40;
  const script = new URL('./fixtures/seam-worker.mjs', import.meta.url);
  const worker = new Worker(script, { workerData: { token: memory.token } });
  const [answer] = (await once(worker, 'message')) as [unknown];
  await worker.terminate();
  expect(answer).toEqual({ pageSize: PAGE, address: memory.address });
  expect(loadWord(memory.address + 8)).toBe(0x4140);
});
