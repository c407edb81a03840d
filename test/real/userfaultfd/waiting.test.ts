import { once } from 'node:events';
import { readdirSync, readlinkSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { describe, expect, test } from 'vitest';
import { type DemandPagingError, FaultBatch, type FaultPort } from '../../../src/api/index.js';
import {
  DEADLINE_MS,
  openShard,
  PAGE,
  region,
  resolveOn,
  rows,
  Scene,
  skipWithoutUserfaultfd,
} from './scene.js';

skipWithoutUserfaultfd();

/** A thread that kicks a port by its token when told to: it writes the count and rings the eventfd itself. */
async function kicker(token: {
  kick: { fd: number; words: SharedArrayBuffer };
}): Promise<{ kick(after_ms: number): void } & AsyncDisposable> {
  const worker = new Worker(new URL('./fixtures/kicker.mjs', import.meta.url), { workerData: token.kick });
  await new Promise((resolve) => worker.once('message', resolve));
  return {
    kick: (after_ms) => worker.postMessage(after_ms),
    [Symbol.asyncDispose]: async () => void (await worker.terminate()),
  };
}

const tokenOf = (s: Scene): { kick: { fd: number; words: SharedArrayBuffer } } => {
  const { port } = s.attachment.shards[0]!;
  if (port.where !== 'worker') throw new Error('a port for workers was expected');
  return port.token as { kick: { fd: number; words: SharedArrayBuffer } };
};

function takeOne(port: FaultPort, batch: FaultBatch, wait: 'block' | 'spin'): number {
  batch.clear();
  return port.take(batch, wait, DEADLINE_MS);
}

describe.each(['block', 'spin'] as const)('%s', (wait) => {
  test('takes a fault that comes while it waits', async () => {
    await using s = await Scene.open([region(64)]);
    const sum = s.actor.walk(s.at(0), PAGE, 64);
    for (let page = 0; page < 64; page++) {
      while (takeOne(s.port, s.batch, wait) === 0);
      expect(rows(s.batch)).toMatchObject([{ kind: 'missing', page }]);
      s.install(page, 2);
    }
    expect(await sum).toBe(128);
  });

  test('returns for a kick before it, and for one while it waits', async () => {
    await using s = await Scene.open([region(1)]);
    s.attachment.shards[0]!.kick();
    const started = performance.now();
    expect(takeOne(s.port, s.batch, wait)).toBe(0);
    await using other = await kicker(tokenOf(s));
    other.kick(20);
    expect(takeOne(s.port, s.batch, wait)).toBe(0);
    expect(performance.now() - started).toBeLessThan(DEADLINE_MS / 2);
    s.batch.clear();
    expect(s.port.take(s.batch, wait, 5), 'a kick counts once').toBe(0);
  });

  test('a kick does not lose a fault', async () => {
    await using s = await Scene.open([region(4)]);
    const value = s.actor.load(s.at(1));
    await s.port.ready();
    s.attachment.shards[0]!.kick();
    while (takeOne(s.port, s.batch, wait) === 0);
    expect(rows(s.batch)).toMatchObject([{ page: 1 }]);
    s.install(1, 5);
    expect(await value).toBe(5);
  });

  test('ends with its time', async () => {
    await using s = await Scene.open([region(1)]);
    const started = performance.now();
    s.batch.clear();
    expect(s.port.take(s.batch, wait, 30)).toBe(0);
    expect(performance.now() - started).toBeGreaterThanOrEqual(29);
  });
});

describe('ready', () => {
  test('resolves for a fault without taking it, and for a kick; the event loop goes on meanwhile', async () => {
    await using s = await Scene.open([region(2)]);
    let turns = 0;
    const count = setInterval(() => turns++, 1);
    const ready = s.port.ready();
    await new Promise((resolve) => setTimeout(resolve, 20));
    expect(turns).toBeGreaterThan(0);
    const value = s.actor.load(s.at(0));
    await ready;
    clearInterval(count);
    s.batch.clear();
    expect(s.port.take(s.batch, 'none', 0)).toBe(1);
    s.install(0, 4);
    expect(await value).toBe(4);
    const kicked = s.port.ready();
    s.attachment.shards[0]!.kick();
    await kicked;
    s.batch.clear();
    expect(s.port.take(s.batch, 'none', 0)).toBe(0);
  });

  test('closing the port ends it', async () => {
    await using s = await Scene.open([region(1)]);
    const ready = s.port.ready();
    s.port.close();
    s.attachment.shards[0]!.kick();
    await ready;
  });
});

test.each(['block', 'spin', 'ready'] as const)('a thread that waits (%s) can be ended', async (wait) => {
  await using s = await Scene.open([region(1)]);
  const workerData = { token: tokenOf(s), wait };
  const worker = new Worker(new URL('./fixtures/ending-worker.mjs', import.meta.url), { workerData });
  await new Promise((resolve) => worker.once('message', resolve));
  const started = performance.now();
  await worker.terminate();
  expect(performance.now() - started).toBeLessThan(2000);
});

test('what the event loop has read, and its thread was ended before it took it, is taken by the next port', async () => {
  await using s = await Scene.open([region(4)]);
  const workerData = { token: tokenOf(s), wait: 'ready' };
  const worker = new Worker(new URL('./fixtures/ending-worker.mjs', import.meta.url), { workerData });
  await once(worker, 'message');
  const value = s.actor.load(s.at(2));
  await once(worker, 'message');
  await worker.terminate();
  const next = openShard(s.attachment);
  s.batch.clear();
  expect(next.take(s.batch, 'none', 0)).toBe(1);
  expect(rows(s.batch)).toMatchObject([{ kind: 'missing', page: 2 }]);
  s.batch.clear();
  expect(next.take(s.batch, 'none', 0), 'a message is taken once').toBe(0);
  next.close();
  s.install(2, 6);
  expect(await value).toBe(6);
});

test('ports that wait on one event loop hold no descriptor after they are closed, or their thread is ended', async () => {
  await using s = await Scene.open([region(1)]);
  // What earlier tests have left to threads that end goes meanwhile.
  const all = (): readonly string[] => readdirSync('/proc/self/fd').flatMap(nameOf);
  const before = new Set(all());
  const added = (): readonly string[] => all().filter((each) => !before.has(each));
  const port = openShard(s.attachment);
  const ready = port.ready();
  expect(added()).not.toEqual([]);
  port.close();
  await ready;
  expect(added()).toEqual([]);
  const workerData = { token: tokenOf(s), wait: 'ready' };
  const worker = new Worker(new URL('./fixtures/ending-worker.mjs', import.meta.url), { workerData });
  await once(worker, 'message');
  await worker.terminate();
  expect(added()).toEqual([]);
});

/** A descriptor and what it leads to; nothing of one that has gone. */
function nameOf(fd: string): readonly string[] {
  try {
    return [`${fd} ${readlinkSync(`/proc/self/fd/${fd}`)}`];
  } catch {
    return [];
  }
}

test('a full batch takes no more than fits; the rest comes with the next', async () => {
  await using s = await Scene.open([region(8)]);
  await using second = await Scene.open([region(1)]);
  const values = [s.actor.load(s.at(0)), second.actor.load(s.at(1))];
  const one = new FaultBatch(1);
  const seen = new Set<number>();
  while (seen.size < 2) {
    one.clear();
    if (s.port.take(one, 'block', DEADLINE_MS) === 0) continue;
    expect(one.count).toBe(1);
    const page = one.page[0]!;
    seen.add(page);
    s.install(page, page + 1);
  }
  expect(await Promise.all(values)).toEqual([1, 2]);
});

test('a closed port refuses', async () => {
  await using s = await Scene.open([region(1)]);
  s.port.close();
  s.port.close();
  const closed = expect.objectContaining({ code: 'CLOSED' }) as DemandPagingError;
  expect(() => s.port.take(s.batch, 'none', 0)).toThrow(closed);
  expect(() => resolveOn(s.port, { verb: 'wake', pages: { first: 0, count: 1 } })).toThrow(closed);
});

test('several shards: each has its own faults, meeting at a multiple of 4096 pages', async () => {
  await using s = await Scene.open([region(8192 + 10)], { shards: 2 });
  const { shards } = s.attachment;
  expect(shards.map(({ pages }) => pages)).toEqual([
    { first: 0, count: 4096 },
    { first: 4096, count: 4106 },
  ]);
  const second = openShard(s.attachment, 1);
  const value = s.actor.load(s.at(5000));
  while (takeOne(second, s.batch, 'block') === 0);
  expect(rows(s.batch)).toMatchObject([{ kind: 'missing', page: 5000 }]);
  s.batch.clear();
  expect(s.port.take(s.batch, 'none', 0)).toBe(0);
  second.staging.fill(6, 0, PAGE);
  expect(resolveOn(second, { verb: 'copy', pages: { first: 5000, count: 1 }, from: 0 })).toMatchObject({
    outcome: 'installed',
  });
  expect(await value).toBe(6);
  expect(() => resolveOn(second, { verb: 'wake', pages: { first: 0, count: 1 } }), 'not its page').toThrow(
    RangeError,
  );
  second.close();
});
