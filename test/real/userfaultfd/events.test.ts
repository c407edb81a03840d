import { describe, expect, test } from 'vitest';
import { FaultBatch, fileOffset, gpa, hva, ResolutionBatch } from '../../../src/api/index.js';
import { userfaultfd } from '../../../src/backends/userfaultfd/index.js';
import { ERRNO, load8, MADV, mapMemory } from '../../../src/linux/index.js';
import { openOrSkip, PAGE, region, rows, Scene, skipWithoutUserfaultfd } from './scene.js';

skipWithoutUserfaultfd();

const page = (first: number, count = 1): { first: number; count: number } => ({ first, count });
const MREMAP_TO = 3; // MAYMOVE and FIXED

describe('remove', () => {
  test('until it is read installing answers again; then the page is missing', async (context) => {
    await using s = await openOrSkip(context, [region(8)]);
    s.install(0, 1);
    const removed = s.actor.call('madvise', s.at(0), 2 * PAGE, MADV.DONTNEED);
    await s.port.ready(); // the event waits to be read
    expect(s.resolve({ verb: 'copy', pages: page(4), from: 0 })).toEqual({
      outcome: 'again',
      done: 0,
      errno: ERRNO.EAGAIN,
    });
    expect(s.resolve({ verb: 'zeropage', pages: page(4) })).toMatchObject({ outcome: 'again' });
    expect(s.take()).toEqual([{ kind: 'remove', pages: page(0, 2) }]);
    expect(await removed).toBe(0);
    expect(s.resolve({ verb: 'copy', pages: page(4), from: 0 })).toMatchObject({ outcome: 'installed' });
    expect(s.port.resident(0)).toBe(false);
    const value = s.actor.load(s.at(0));
    expect(s.take()).toMatchObject([{ kind: 'missing', page: 0 }]);
    s.install(0, 6);
    expect(await value).toBe(6);
  });

  test('is not reported where it was not asked for', async () => {
    await using s = await Scene.open([region(2)], { events: [] });
    s.install(0, 1);
    expect(await s.actor.call('madvise', s.at(0), PAGE, MADV.DONTNEED)).toBe(0);
    s.batch.clear();
    expect(s.port.take(s.batch, 'none', 0)).toBe(0);
    expect(s.attachment.supports.events).toEqual([]);
  });
});

describe('unmap', () => {
  test('names the pages; resolving there is gone', async () => {
    await using s = await Scene.open([region(4)]);
    const unmapped = s.actor.call('munmap', s.at(2), 2 * PAGE);
    expect(s.take()).toEqual([{ kind: 'unmap', pages: page(2, 2) }]);
    expect(await unmapped).toBe(0);
    expect(s.resolve({ verb: 'copy', pages: page(2), from: 0 })).toEqual({
      outcome: 'gone',
      done: 0,
      errno: ERRNO.ENOENT,
    });
    expect(s.port.resident(2)).toBe(false);
    // Told of it, closing leaves alone what is in its place by then.
    s.attachment.unmapped!(page(2, 2));
    using other = mapMemory({ kind: 'anonymous', address: s.at(2), length: 2 * PAGE });
    other.bytes()[0] = 77;
    s.port.close();
    await s.attachment.close();
    expect(load8(other.address)).toBe(77);
  });
});

describe('remap', () => {
  test('the port follows: faults at the new place are of the old pages', async () => {
    await using s = await Scene.open([region(4)]);
    s.install(1, 0x31);
    using place = mapMemory({ kind: 'reserved', length: 4 * PAGE });
    const to = place.address;
    place.dispose();
    const moved = s.actor.call('mremap', s.at(0), 4 * PAGE, 4 * PAGE, MREMAP_TO, to);
    // The old place is then unmapped, which is nobody's page any more.
    expect(await s.until(moved)).toEqual({ value: to, seen: [{ kind: 'remap', pages: page(0, 4), to }] });
    s.attachment.moved(page(0, 4), to);
    expect(await s.actor.load(to + PAGE)).toBe(0x31);
    const value = s.actor.load(to + 3 * PAGE);
    expect(s.take()).toMatchObject([{ kind: 'missing', page: 3 }]);
    s.install(3, 0x33);
    expect(await value).toBe(0x33);
    expect(s.port.resident(1)).toBe(true);
  });
});

test('a page over which another was moved is gone, not misplaced', async () => {
  await using s = await Scene.open([region(4)]);
  s.install(0, 9);
  const moved = s.actor.call('mremap', s.at(0), PAGE, PAGE, MREMAP_TO, s.at(2));
  const { seen } = await s.until(moved);
  expect(seen).toEqual([
    { kind: 'unmap', pages: page(2) },
    { kind: 'remap', pages: page(0), to: s.at(2) },
  ]);
  expect(s.resolve({ verb: 'copy', pages: page(2), from: 0 })).toEqual({
    outcome: 'gone',
    done: 0,
    errno: ERRNO.ENOENT,
  });
  expect(s.port.resident(2)).toBe(false);
  expect(s.port.resident(0)).toBe(true);
  s.attachment.unmapped!(page(2));
  s.attachment.moved(page(0), s.at(2));
});

describe('fork', () => {
  test('is refused for memory of this process, where it can deadlock', () => {
    const events = ['fork'] as unknown as ['remove'];
    expect(() => userfaultfd({ events })).toThrow(RangeError);
  });

  test('children do not get the memory, and nothing is reported', async () => {
    await using s = await Scene.open([region(4)]);
    expect(await s.actor.spawn('/bin/true')).toBe(0);
    s.batch.clear();
    expect(s.port.take(s.batch, 'none', 0)).toBe(0);
  });
});

describe('an event over several runs of pages', () => {
  /** Two regions side by side in host memory, far apart in the layout. */
  async function adjacent(
    context: Parameters<typeof openOrSkip>[0],
  ): Promise<{ s: Scene; start: number } & AsyncDisposable> {
    const host = mapMemory({ kind: 'anonymous', length: 4 * PAGE, transparentHugePages: false });
    const at = (first: number, where: number): ReturnType<typeof region> =>
      region(2, 'anonymous', {
        gpa: gpa(where),
        hva: hva(host.address + first * PAGE),
        sourceOffset: fileOffset(0),
      });
    // Lower in host memory is higher in the guest: their pages are 2, 3, 0, 1.
    const s = await openOrSkip(context, [at(0, 0x10_0000), at(2, 0)]);
    return {
      s,
      start: host.address,
      async [Symbol.asyncDispose]() {
        await s[Symbol.asyncDispose]();
        host.dispose();
      },
    };
  }

  test('comes as a row for each run', async (context) => {
    await using scene = await adjacent(context);
    const { s, start } = scene;
    const removed = s.actor.call('madvise', start + PAGE, 2 * PAGE, MADV.DONTNEED);
    expect(s.take()).toEqual([
      { kind: 'remove', pages: page(0) },
      { kind: 'remove', pages: page(3) },
    ]);
    expect(await removed).toBe(0);
  });

  test('what does not fit is carried over, and nothing is installed past it', async (context) => {
    await using scene = await adjacent(context);
    const { s, start } = scene;
    const removed = s.actor.call('madvise', start, 4 * PAGE, MADV.DONTNEED);
    const small = new FaultBatch(1);
    while (s.port.take(small, 'block', 20_000) === 0);
    expect(rows(small)).toEqual([{ kind: 'remove', pages: page(0, 4) }]);
    expect(await removed).toBe(0);
    const partly = s.actor.call('madvise', start + PAGE, 2 * PAGE, MADV.DONTNEED);
    small.clear();
    while (s.port.take(small, 'block', 20_000) === 0);
    expect(rows(small)).toEqual([{ kind: 'remove', pages: page(0) }]);
    expect(await partly).toBe(0);
    const batch = new ResolutionBatch(2);
    batch.push({ verb: 'copy', pages: page(1), from: 0 });
    batch.push({ verb: 'wake', pages: page(1) });
    s.port.resolve(batch);
    expect([batch.outcomeOf(0), batch.outcomeOf(1)]).toEqual(['again', 'installed']);
    await s.port.ready();
    small.clear();
    expect(s.port.take(small, 'none', 0)).toBe(1);
    expect(rows(small)).toEqual([{ kind: 'remove', pages: page(3) }]);
    s.port.resolve(batch);
    expect(batch.outcomeOf(0)).toBe('installed');
  });
});
