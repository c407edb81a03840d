import { describe, expect, test } from 'vitest';
import {
  copyMemory,
  ERRNO,
  load8,
  Mapping,
  mapMemory,
  pagemap,
  userfaultfdSupport,
} from '../../../src/linux/index.js';
import { libc } from '../../../src/linux/index.js';
import { needHugePages } from '../../support/huge-pages.js';
import { HUGE, openOrSkip, PAGE, region, Scene, skipWithoutUserfaultfd } from './scene.js';

skipWithoutUserfaultfd();

const page = (first: number, count = 1): { first: number; count: number } => ({ first, count });
const installed = { outcome: 'installed', errno: 0 };

/** Bytes behind a region, seen past the userfaultfd. */
function behind(s: Scene): Mapping {
  const { file, length } = s.attachment.layout.regions[0]!;
  const token = {
    kind: 'shmem',
    address: s.at(0),
    length: Number(length),
    pageSize: PAGE,
    fd: file!.fd,
  } as const;
  return Mapping.borrow(token).alias();
}

describe('copy', () => {
  test.each(['anonymous', 'shmem'] as const)(
    '%s: contents land in their pages, from anywhere in staging or memory',
    async (memory) => {
      await using s = await Scene.open([region(8, memory)]);
      const { staging } = s.port;
      for (let i = 0; i < 3 * PAGE; i++) staging[5 * PAGE + i] = (i >>> 12) + 10;
      expect(s.resolve({ verb: 'copy', pages: page(2, 3), from: 5 * PAGE })).toEqual({
        ...installed,
        done: 3,
      });
      using source = mapMemory({ kind: 'anonymous', length: PAGE });
      source.bytes().fill(99);
      expect(s.resolve({ verb: 'copy', pages: page(0), from: source.address, direct: true })).toEqual({
        ...installed,
        done: 1,
      });
      for (const [at, byte] of [
        [0, 99],
        [2, 10],
        [3, 11],
        [4, 12],
      ] as const)
        expect(await s.actor.load(s.at(at) + 77)).toBe(byte);
    },
  );

  test('a source that cannot be read fails with its errno and installs nothing', async () => {
    await using s = await Scene.open([region(2)]);
    using hole = mapMemory({ kind: 'reserved', length: PAGE });
    expect(s.resolve({ verb: 'copy', pages: page(0), from: hole.address, direct: true })).toEqual({
      outcome: 'failed',
      done: 0,
      errno: ERRNO.EFAULT,
    });
    expect(s.port.resident(0)).toBe(false);
    expect(s.resolve({ verb: 'zeropage', pages: page(0) })).toEqual({ ...installed, done: 1 });
    expect(s.port.resident(0)).toBe(true);
  });

  test('huge pages come whole, and have no zero page', async (context) => {
    using _pool = needHugePages(context, 4, HUGE);
    await using s = await openOrSkip(context, [region(2, 'hugetlb')]);
    expect(s.attachment.supports.verbs).not.toContain('zeropage');
    expect(s.port.staging.length).toBeGreaterThanOrEqual(HUGE);
    const value = s.actor.load(s.at(1) + 1_234_567);
    expect(s.take()).toMatchObject([{ kind: 'missing', page: 1 }]);
    expect(s.resolve({ verb: 'zeropage', pages: page(1) })).toMatchObject({ outcome: 'refused', done: 0 });
    expect(s.resolve({ verb: 'copy', pages: page(1), from: s.stage(0x3c, 0, HUGE) })).toEqual({
      ...installed,
      done: 1,
    });
    expect(await value).toBe(0x3c);
    expect(s.resolve({ verb: 'copy', pages: page(0, 2), from: 0 })).toMatchObject({
      outcome: 'already-present',
      done: 1,
    });
  });
});

describe('continue', () => {
  const options = { install: 'continue' } as const;

  test('fill writes the contents first; a missing page of the cache and a minor fault are both served', async (context) => {
    await using s = await openOrSkip(context, [region(8, 'shmem')], options);
    expect(s.attachment.supports).toMatchObject({ install: 'continue', fill: true });
    const value = s.actor.load(s.at(3));
    expect(s.take()).toMatchObject([{ kind: 'missing', page: 3 }]);
    expect(s.resolve({ verb: 'continue', pages: page(2, 3), from: s.stage(0x21, 0, 3 * PAGE) })).toEqual({
      ...installed,
      done: 3,
    });
    expect(await value).toBe(0x21);
    using cache = behind(s);
    cache.bytes(6 * PAGE, PAGE).fill(0x66);
    const cached = s.actor.load(s.at(6));
    expect(s.take()).toMatchObject([{ kind: 'minor', page: 6 }]);
    expect(s.resolve({ verb: 'continue', pages: page(6) })).toEqual({ ...installed, done: 1 });
    expect(await cached).toBe(0x66);
  });

  test('what is mapped already is never written over', async (context) => {
    await using s = await openOrSkip(context, [region(8, 'shmem')], options);
    expect(s.resolve({ verb: 'continue', pages: page(2), from: s.stage(1) })).toEqual({
      ...installed,
      done: 1,
    });
    await s.actor.store(s.at(2), 0x77); // the guest's own
    expect(s.resolve({ verb: 'continue', pages: page(0, 4), from: s.stage(5, 0, 4 * PAGE) })).toEqual({
      outcome: 'already-present',
      done: 2,
      errno: ERRNO.EEXIST,
    });
    expect(await s.actor.load(s.at(2))).toBe(0x77);
    expect(await s.actor.load(s.at(1))).toBe(5);
    expect(s.port.resident(3)).toBe(false);
  });

  test('without contents anywhere it fails with EFAULT', async (context) => {
    await using s = await openOrSkip(context, [region(2, 'shmem')], options);
    expect(s.resolve({ verb: 'continue', pages: page(0) })).toEqual({
      outcome: 'failed',
      done: 0,
      errno: ERRNO.EFAULT,
    });
  });

  test('huge pages are filled through a second mapping', async (context) => {
    using _pool = needHugePages(context, 2, HUGE);
    await using s = await openOrSkip(context, [region(2, 'hugetlb')], options);
    const value = s.actor.load(s.at(1) + 99);
    expect(s.take()).toMatchObject([{ page: 1 }]);
    expect(s.resolve({ verb: 'continue', pages: page(1), from: s.stage(0x42, 0, HUGE) })).toEqual({
      ...installed,
      done: 1,
    });
    expect(await value).toBe(0x42);
    expect(s.resolve({ verb: 'continue', pages: page(0, 2), from: 0 })).toMatchObject({
      outcome: 'already-present',
      done: 1,
    });
  });
});

describe('bytes outside staging', () => {
  test.for([
    ['copy', {}],
    ['move', { install: 'move' }],
    ['continue', { install: 'continue' }],
  ] as const)(
    '%s: they are refused, and no page comes, also where other memory is mapped',
    async ([verb, options], context) => {
      const memory = verb === 'continue' ? 'shmem' : 'anonymous';
      await using s = await openOrSkip(context, [region(4, memory)], options);
      using other = mapMemory({ kind: 'anonymous', length: 4 * PAGE });
      other.bytes().fill(0xee);
      const { staging } = s.port;
      const from = other.address - libc().addressOf(staging);
      for (const at of [from, staging.length - PAGE + 1, -8])
        expect(s.resolve({ verb, pages: page(1), from: at }), String(at)).toEqual({
          outcome: 'failed',
          done: 0,
          errno: ERRNO.EFAULT,
        });
      const value = s.actor.load(s.at(1));
      s.take();
      s.stage(7);
      expect(s.resolve({ verb, pages: page(1), from: 0 })).toMatchObject(installed);
      expect(await value).toBe(7);
    },
  );
});

describe('move', () => {
  test('takes the pages out of staging, which can be used again', async (context) => {
    await using s = await openOrSkip(context, [region(8)], { install: 'move' });
    expect(s.attachment.supports).toMatchObject({ install: 'move', directCopy: false });
    for (const round of [1, 2]) {
      s.stage(round, 0, 2 * PAGE);
      const value = s.actor.load(s.at(round * 2));
      s.take();
      expect(s.resolve({ verb: 'move', pages: page(round * 2, 2), from: 0 })).toEqual({
        ...installed,
        done: 2,
      });
      expect(await value).toBe(round);
      expect(s.port.staging[0], 'the page moved away').toBe(0);
    }
  });

  test('a hole to move from is a failure, not a target that is gone', async (context) => {
    await using s = await openOrSkip(context, [region(8)], { install: 'move' });
    s.stage(1);
    expect(s.resolve({ verb: 'move', pages: page(0, 2), from: 0 })).toEqual({
      outcome: 'failed',
      done: 1,
      errno: ERRNO.EFAULT,
    });
  });

  test('meets a page that is there', async (context) => {
    await using s = await openOrSkip(context, [region(8)], { install: 'move' });
    s.install(1, 3);
    s.stage(4, 0, 2 * PAGE);
    expect(s.resolve({ verb: 'move', pages: page(0, 2), from: 0 })).toEqual({
      outcome: 'already-present',
      done: 1,
      errno: ERRNO.EEXIST,
    });
    expect(await s.actor.load(s.at(1))).toBe(3);
  });
});

describe('poison', () => {
  test('the waiter and everyone after it fail loudly; the VMM survives', async (context) => {
    await using s = await openOrSkip(context, [region(4, 'shmem')]);
    const value = s.actor.kernelLoad(s.at(1));
    s.take();
    expect(s.resolve({ verb: 'poison', pages: page(1, 2) })).toEqual({ ...installed, done: 2 });
    expect([-ERRNO.EFAULT, -ERRNO.EHWPOISON]).toContain(await value);
    const { memory, layout } = s.attachment;
    const into = new Uint8Array(8);
    expect(() => memory!.load(layout.gpaOf(2), into)).toThrow(
      expect.objectContaining({ code: 'PAGE_POISONED' }),
    );
    expect(() => memory!.store(layout.gpaOf(2), into)).toThrow(
      expect.objectContaining({ code: 'PAGE_POISONED' }),
    );
    expect(s.resolve({ verb: 'poison', pages: page(0, 4) })).toMatchObject({
      outcome: 'already-present',
      done: 1,
    });
  });
});

describe('write protection', () => {
  test.each(['anonymous', 'shmem'] as const)(
    '%s: a store to a protected page is reported, and waits',
    async (memory) => {
      await using s = await Scene.open([region(4, memory)], { faults: ['missing', 'write-protect'] });
      expect(s.resolve({ verb: 'copy', pages: page(0), from: s.stage(1), protect: true })).toEqual({
        ...installed,
        done: 1,
      });
      s.install(1, 2);
      expect(s.resolve({ verb: 'writeprotect', pages: page(1), protect: true })).toEqual({
        ...installed,
        done: 1,
      });
      for (const [at, before] of [
        [0, 1],
        [1, 2],
      ] as const) {
        const stored = s.actor.store(s.at(at), 0x22);
        expect(s.take()).toMatchObject([{ kind: 'write-protect', page: at, write: true }]);
        expect(load8(s.at(at))).toBe(before);
        expect(s.resolve({ verb: 'writeprotect', pages: page(at), protect: false })).toEqual({
          ...installed,
          done: 1,
        });
        await stored;
        expect(load8(s.at(at))).toBe(0x22);
      }
    },
  );

  test('lifting it without waking leaves the waiter to a later wake', async () => {
    await using s = await Scene.open([region(2)], { faults: ['missing', 'write-protect'] });
    expect(s.resolve({ verb: 'copy', pages: page(0), from: s.stage(1), protect: true })).toMatchObject(
      installed,
    );
    const stored = s.actor.store(s.at(0), 7);
    s.take();
    let through = false;
    void stored.then(() => (through = true));
    expect(s.resolve({ verb: 'writeprotect', pages: page(0), protect: false, wake: false })).toMatchObject(
      installed,
    );
    expect(load8(s.at(0))).toBe(1);
    expect(through).toBe(false);
    s.resolve({ verb: 'wake', pages: page(0) });
    await stored;
    expect(load8(s.at(0))).toBe(7);
  });

  test('asynchronous: nobody waits and nothing is reported; the page tables know', async (context) => {
    await using s = await openOrSkip(context, [region(2)], {
      faults: ['missing', 'write-protect'],
      asyncWriteProtect: true,
    });
    expect(s.attachment.supports.faults).toEqual(['missing']);
    s.install(0, 1);
    expect(s.resolve({ verb: 'writeprotect', pages: page(0), protect: true })).toMatchObject(installed);
    expect(pagemap(s.at(0), 1)[0]?.writeProtected).toBe(true);
    await s.actor.store(s.at(0), 9);
    expect(pagemap(s.at(0), 1)[0]?.writeProtected).toBe(false);
    s.batch.clear();
    expect(s.port.take(s.batch, 'none', 0)).toBe(0);
  });
});

describe('read and write protection', () => {
  test('holds every access back without losing the contents, where the kernel has it', async (context) => {
    if (!userfaultfdSupport().features.includes('RWP')) {
      await expect(Scene.open([region(2)], { faults: ['missing', 'rwp'] })).rejects.toMatchObject({
        code: 'NOT_SUPPORTED',
        message: expect.stringContaining('RWP'),
      });
      context.skip("this kernel's userfaultfd lacks RWP (Linux 7.3): only its refusal was checked");
    }
    await using s = await Scene.open([region(2)], { faults: ['missing', 'rwp'] });
    expect(s.attachment.supports.freeze).toBe('full');
    s.install(0, 5);
    expect(s.resolve({ verb: 'rwprotect', pages: page(0), protect: true })).toMatchObject(installed);
    const value = s.actor.load(s.at(0));
    expect(s.take()).toMatchObject([{ kind: 'rwp', page: 0 }]);
    expect(s.resolve({ verb: 'rwprotect', pages: page(0), protect: false })).toMatchObject(installed);
    expect(await value).toBe(5);
  });
});

test('a row that spans two moved parts is carried out on both', async () => {
  await using s = await Scene.open([region(4)]);
  using place = mapMemory({ kind: 'reserved', length: 2 * PAGE });
  const to = place.address;
  place.dispose();
  const moved = s.actor.call('mremap', s.at(2), 2 * PAGE, 2 * PAGE, 3, to);
  expect(await s.until(moved)).toEqual({ value: to, seen: [{ kind: 'remap', pages: page(2, 2), to }] });
  s.attachment.moved(page(2, 2), to);
  s.port.staging.fill(1, 0, 2 * PAGE).fill(2, 2 * PAGE, 4 * PAGE);
  expect(s.resolve({ verb: 'copy', pages: page(0, 4), from: 0 })).toEqual({ ...installed, done: 4 });
  const into = new Uint8Array(4 * PAGE);
  s.attachment.memory!.load(s.attachment.layout.gpaOf(0), into);
  expect([into[0], into[PAGE], into[2 * PAGE], into[3 * PAGE]]).toEqual([1, 1, 2, 2]);
  using cell = mapMemory({ kind: 'anonymous', length: PAGE });
  copyMemory(cell.address, to, 1);
  expect(cell.bytes(0, 1)[0]).toBe(2);
});
