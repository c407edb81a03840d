import { describe, expect, test } from 'vitest';
import { ERRNO } from '../../../src/linux/index.js';
import { openOrSkip, PAGE, region, skipWithoutUserfaultfd } from './scene.js';

skipWithoutUserfaultfd();

describe('missing faults of anonymous memory', () => {
  test('a load is reported with page, kind and thread; copy answers it', async (context) => {
    await using s = await openOrSkip(context, [region(8)]);
    const value = s.actor.load(s.at(3) + 17);
    expect(s.take()).toMatchObject([{ kind: 'missing', page: 3, write: false, thread: s.actor.thread }]);
    expect(s.resolve({ verb: 'copy', pages: { first: 3, count: 1 }, from: s.stage(0x5a) })).toEqual({
      outcome: 'installed',
      done: 1,
      errno: 0,
    });
    expect(await value).toBe(0x5a);
  });

  test('a store is a write fault; zeropage answers it', async (context) => {
    await using s = await openOrSkip(context, [region(4)]);
    const stored = s.actor.store(s.at(1), 9);
    expect(s.take()).toMatchObject([{ kind: 'missing', page: 1, write: true }]);
    expect(s.resolve({ verb: 'zeropage', pages: { first: 0, count: 3 } })).toEqual({
      outcome: 'installed',
      done: 3,
      errno: 0,
    });
    await stored;
    expect([await s.actor.load(s.at(1)), await s.actor.load(s.at(2))]).toEqual([9, 0]);
  });

  test('already-present wakes the waiter and says how far it came', async (context) => {
    await using s = await openOrSkip(context, [region(8)]);
    expect(
      s.resolve({ verb: 'copy', pages: { first: 2, count: 1 }, from: s.stage(7), wake: false }),
    ).toMatchObject({ outcome: 'installed' });
    const value = s.actor.load(s.at(5));
    s.take();
    expect(
      s.resolve({ verb: 'copy', pages: { first: 5, count: 1 }, from: s.stage(8), wake: false }),
    ).toMatchObject({ outcome: 'installed' });
    // The waiter of page 5 sleeps on: installed without waking. A second copy meets EEXIST, and wakes it.
    expect(s.resolve({ verb: 'copy', pages: { first: 5, count: 1 }, from: s.stage(9) })).toEqual({
      outcome: 'already-present',
      done: 0,
      errno: ERRNO.EEXIST,
    });
    expect(await value).toBe(8);
    s.stage(4, 0, 4 * PAGE);
    expect(s.resolve({ verb: 'copy', pages: { first: 0, count: 4 }, from: 0 })).toEqual({
      outcome: 'already-present',
      done: 2,
      errno: ERRNO.EEXIST,
    });
    expect(await s.actor.walk(s.at(0), PAGE, 3)).toBe(4 + 4 + 7);
  });

  test('wake alone lets the waiter fault anew', async (context) => {
    await using s = await openOrSkip(context, [region(2)]);
    const value = s.actor.load(s.at(0));
    s.take();
    expect(s.resolve({ verb: 'wake', pages: { first: 0, count: 2 } })).toMatchObject({
      outcome: 'installed',
      done: 2,
    });
    expect(s.take()).toMatchObject([{ kind: 'missing', page: 0 }]);
    s.install(0, 3);
    expect(await value).toBe(3);
  });

  test('what is not declared is refused and changes nothing', async (context) => {
    await using s = await openOrSkip(context, [region(2)]);
    const pages = { first: 0, count: 1 };
    const refused = { outcome: 'refused', done: 0, errno: 0 };
    expect(s.attachment.supports.verbs).not.toContain('continue');
    expect(s.resolve({ verb: 'fail', pages })).toEqual(refused);
    expect(s.resolve({ verb: 'continue', pages, from: 0 })).toEqual(refused);
    expect(s.resolve({ verb: 'writeprotect', pages, protect: true })).toEqual(refused);
    expect(s.resolve({ verb: 'rwprotect', pages, protect: true })).toEqual(refused);
    expect(s.port.resident(0)).toBe(false);
  });
});
