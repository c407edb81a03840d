import { readdirSync } from 'node:fs';
import { afterEach, describe, expect, test } from 'vitest';
import { type DemandPagingError, gpa, type Pager } from '../../../src/api/index.js';
import { startAccessor } from '../../../src/accessors/index.js';
import { MADV } from '../../../src/linux/index.js';
import { Actor } from '../userfaultfd/actor.js';
import { PAGE, skipWithoutUserfaultfd } from '../userfaultfd/scene.js';
import { contents, type GuestOptions, openGuest, pages } from './guest.js';

skipWithoutUserfaultfd();

const open: Pager[] = [];
afterEach(async () => {
  await Promise.all(open.splice(0).map((pager) => pager.close()));
});

const shared = { thread: 'shared', faultAroundPages: 1 } as const;

/** A pager on a thread that it shares with others of the same source, and why it stopped, if it does. */
async function guest(options: GuestOptions): Promise<Pager & { ended?: DemandPagingError }> {
  const pager: Pager & { ended?: DemandPagingError } = await openGuest({ ...options, pages: 16 });
  pager.on('stopped', (error) => (pager.ended = error));
  open.push(pager);
  return pager;
}

const threads = (): number => readdirSync('/proc/self/task').length;
const read = async (pager: Pager, page: number): Promise<number> =>
  (await pager.memory!.read(gpa(page * PAGE), 1))[0]!;

/** Two pagers of one source on one thread: the first is stuck in its source when this resolves. */
async function neighbours(options: { synchronous: boolean; sourceTimeout_ms?: number }) {
  const words = new Int32Array(new SharedArrayBuffer(8));
  const policy = { ...shared, sourceTimeout_ms: options.sourceTimeout_ms ?? 500 };
  const before = threads();
  const of = (stuck: number): Promise<Pager & { ended?: DemandPagingError }> =>
    guest({ source: 'held', given: { stuck, words, synchronous: options.synchronous }, policy });
  const stuck = await of(8 * PAGE);
  const other = await of(Infinity);
  expect(threads() - before).toBe(1);
  return {
    stuck,
    other,
    async getStuck(): Promise<void> {
      stuck.ensure(pages(8, 1)).catch(() => {}); // told by the pager
      while (Atomics.load(words, 1) === 0) await new Promise((resolve) => setImmediate(resolve));
    },
    release(): void {
      Atomics.store(words, 0, 1);
      Atomics.notify(words, 0);
    },
  };
}

describe('resolvers share a thread', () => {
  test('an asynchronous source of a module: many pagers opened at once have one thread', async () => {
    const before = threads();
    const pagers = await Promise.all(Array.from({ length: 12 }, () => guest({ source: 'later' })));
    expect(threads() - before).toBe(1);
    expect(await Promise.all(pagers.map((pager, page) => read(pager, page)))).toEqual(
      pagers.map((_, page) => contents(page)),
    );
    await Promise.all(open.splice(0).map((pager) => pager.close()));
    expect(threads()).toBe(before);
  });

  test('a synchronous source of a module has a thread of its own, unless sharing is asked for', async () => {
    const before = threads();
    await guest({});
    await guest({});
    expect(threads() - before).toBe(2);
    const asked = [await guest({ policy: shared }), await guest({ policy: shared })];
    expect(threads() - before).toBe(3);
    expect(await Promise.all(asked.map((pager) => read(pager, 5)))).toEqual([contents(5), contents(5)]);
  });

  test('synchronous sources of a module, more than sixteen: the further ones share a thread', async () => {
    const before = threads();
    const pagers = await Promise.all(Array.from({ length: 20 }, () => guest({ source: 'open' })));
    expect(threads() - before).toBe(17);
    expect(await Promise.all(pagers.map((pager, page) => read(pager, page % 16)))).toEqual(
      pagers.map((_, page) => contents(page % 16)),
    );
    const own = await guest({ policy: { thread: 'own' } });
    expect(threads() - before).toBe(18);
    expect(await read(own, 3)).toBe(contents(3));
  });

  test('a module that is synchronous once and asynchronous once: each comes to a thread of its kind', async () => {
    const words = new Int32Array(new SharedArrayBuffer(8));
    const of = (synchronous: boolean): Promise<Pager> =>
      guest({ source: 'held', given: { stuck: Infinity, words, synchronous } });
    for (const synchronous of [false, true, false, true])
      expect(await read(await of(synchronous), 3)).toBe(contents(3));
  });
});

describe.each([true, false])('a read that does not come back (synchronous: %s)', (synchronous) => {
  test('in time delays its neighbours, and costs none anything', async () => {
    const { stuck, other, getStuck, release } = await neighbours({ synchronous, sourceTimeout_ms: 60_000 });
    await getStuck();
    const late = read(other, 2);
    release();
    expect(await late).toBe(contents(2));
    expect(await read(stuck, 8)).toBe(contents(8));
    expect([stuck.stopped, other.stopped]).toEqual([undefined, undefined]);
  });

  test('for good is ended: its neighbour goes on elsewhere, with what waited, was asked for and was removed', async () => {
    const { stuck, other, getStuck } = await neighbours({ synchronous });
    await other.ensure(pages(0, 2));
    await other.discard(pages(1, 1), { then: 'zero' });
    const accessor = await startAccessor('vmm-syscall', other.layout);
    await using actor = await Actor.start();
    await getStuck();
    const waiting = accessor.access({ page: 4, length: 1 });
    const ensured = other.ensure(pages(6, 4));
    // No thread reads its event before the neighbour continues.
    const dropped = actor.call('madvise', Number(other.layout.hvaOf(0)), PAGE, MADV.DONTNEED);
    expect(await waiting).toEqual({ ok: true, bytes: Uint8Array.of(contents(4)) });
    await ensured;
    expect(await dropped).toBe(0);
    expect([await read(other, 0), await read(other, 1), await read(other, 9)]).toEqual([0, 0, contents(9)]);
    expect(stuck.stopped).toMatchObject({ code: 'SOURCE_TIMEOUT' });
    expect(other.stopped).toBeUndefined();
    await accessor.stop();
  });
});

describe('a source that ends its thread', () => {
  test.each([
    ['inside a read: it is stopped, and its neighbour goes on', true],
    ['outside of any read: none can be blamed, and all go on, apart', false],
  ] as const)('%s', async (_, inRead) => {
    const words = new Int32Array(new SharedArrayBuffer(4));
    const of = (ends: number): Promise<Pager> =>
      guest({ source: 'ends', given: { ends, words, inRead }, policy: { faultAroundPages: 1 } });
    const guilty = await of(7 * PAGE);
    const other = await of(-1);
    await other.ensure(pages(0, 3));
    const asked = guilty.ensure(pages(7, 1)).then(
      () => 'brought',
      (error: DemandPagingError) => error.code,
    );
    expect(await asked).toBe(inRead ? 'HANDLER_DIED' : 'brought');
    for (const page of [0, 5, 9]) expect(await read(other, page)).toBe(contents(page));
    expect(other.stopped).toBeUndefined();
    expect(guilty.stopped?.code).toBe(inRead ? 'HANDLER_DIED' : undefined);
  });
});

describe('an opening that does not come back', () => {
  const words = (): Int32Array => new Int32Array(new SharedArrayBuffer(8));
  const opened = (how: string, given: Int32Array, more: GuestOptions['policy'] = {}, source = 'openedOne') =>
    guest({ source, given: { how, words: given }, policy: { faultAroundPages: 1, ...more } });

  test.each([
    ['late', 'leaves the shared thread to its neighbours, and its source is closed when it does come back'],
    ['stuck', 'inside a call ends the shared thread, and its neighbours go on elsewhere'],
  ])('%s: %s', async (how) => {
    const before = threads();
    const neighbours = [await opened('at once', words()), await opened('at once', words())];
    expect(threads() - before).toBe(1);
    const shut = words();
    await expect(opened(how, shut, { openTimeout_ms: 200 })).rejects.toMatchObject({
      code: 'SOURCE_TIMEOUT',
    });
    for (const pager of neighbours) {
      expect(await read(pager, 3)).toBe(contents(3));
      expect(pager.stopped).toBeUndefined();
    }
    Atomics.store(shut, 0, 1);
    Atomics.notify(shut, 0);
    while (how === 'late' && Atomics.load(shut, 1) === 0)
      await new Promise((resolve) => setImmediate(resolve)); // the source is closed again
    for (const pager of neighbours) expect(await read(pager, 4)).toBe(contents(4));
  });

  test('of the first source of a module: others of it are opened meanwhile', async () => {
    const aborts = new AbortController();
    const first = openGuest({
      source: 'openedOther',
      given: { how: 'stuck', words: words() },
      signal: aborts.signal,
    });
    const second = await opened('at once', words(), {}, 'openedOther');
    expect(await read(second, 3)).toBe(contents(3));
    aborts.abort(new Error('enough'));
    await expect(first).rejects.toThrow('enough');
  });
});
