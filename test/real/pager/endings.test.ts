import { execFileSync, spawnSync } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, readdirSync, rmSync, writeFileSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { startAccessor } from '../../../src/accessors/index.js';
import { type DemandPagingError, gpa, type Pager } from '../../../src/api/index.js';
import { ERRNO, mapMemory, NativeBlock, readMemory } from '../../../src/linux/index.js';
import { PAGE, skipWithoutUserfaultfd } from '../userfaultfd/scene.js';
import { contents, openGuest, pages, PAGES } from './guest.js';

skipWithoutUserfaultfd();

const folder = mkdtempSync(join(tmpdir(), 'endings-'));
afterAll(() => rmSync(folder, { recursive: true }));

const stoppedOf = (pager: Pager): Promise<readonly [string, string]> =>
  new Promise((resolve) =>
    pager.on('stopped', (error: DemandPagingError, waiters) => resolve([error.code, waiters])),
  );

test.each([
  ['throwingLater', 'HANDLER_DIED EIO'],
  ['rejectingLater', 'HANDLER_DIED EIO'],
  ['exitingLater', 'HANDLER_DIED '],
  ['exiting', 'HANDLER_DIED '],
  ['open', 'fulfilled'],
])(
  'a program that awaits a page of source %s and nothing else: it settles (%s), and close() after it',
  (how, settled) => {
    const script = new URL('./fixtures/awaiting.mjs', import.meta.url).pathname;
    const { stdout, status } = spawnSync(process.execPath, [script, how], {
      encoding: 'utf8',
      timeout: 20_000,
    });
    expect({ stdout, status }).toEqual({ stdout: `${settled}\nclosed\n`, status: 0 });
  },
);

/**
 * What a page of the VMM's own memory holds after the pager was closed while the source's thread was in the
 * middle of a read, which ended that thread: a byte, or -errno.
 */
async function closeDuringRead(missing: 'poison' | 'zero'): Promise<number> {
  using memory = mapMemory({ kind: 'anonymous', length: PAGES * PAGE });
  using byte = new NativeBlock(8);
  const words = new Int32Array(new SharedArrayBuffer(8));
  const pager = await openGuest({ source: 'ending', given: { words }, hva: memory.address });
  const accessor = await startAccessor('vmm-syscall', pager.layout);
  const access = accessor.access({ page: 3, length: 1 });
  const asked = Atomics.waitAsync(words, 0, 0);
  if (asked.async) await asked.value;
  const closed = pager.close({ missing }); // the resolver is told to end, and cannot hear it
  Atomics.store(words, 1, 1);
  Atomics.notify(words, 1);
  await closed;
  expect(await access).toMatchObject({ ok: missing === 'zero' });
  await accessor.stop();
  const result = readMemory(byte.address, memory.address + 3 * PAGE, 1);
  return result === 1 ? byte.bytes[0]! : result;
}

describe('a resolver’s thread that ends after it was told to end, and before it has', () => {
  test('closed with poison: what waits fails, later accesses, too, and close() resolves', async () => {
    expect(await closeDuringRead('poison')).toBe(-ERRNO.EFAULT);
  });

  test('closed with zeros: what waits reads zeros, as was asked', async () => {
    expect(await closeDuringRead('zero')).toBe(0);
  });
});

describe('close', () => {
  test('waits for a discard that was begun before it', async () => {
    const pager = await openGuest();
    await pager.ensure(pages(0, 4));
    const [discarded, closed] = [pager.discard(pages(0, 4), { then: 'refetch' }), pager.close()];
    expect(await Promise.allSettled([discarded, closed])).toMatchObject([
      { status: 'fulfilled' },
      { status: 'fulfilled' },
    ]);
  });

  test('waits for a discard of many ranges, and refuses one that comes after', async () => {
    const pager = await openGuest();
    await pager.ensure(pages(0, 64));
    const discarded = pager.discard(Array.from({ length: 32 }, (_, i) => pages(2 * i, 1)).flat(), {
      then: 'refetch',
    });
    const closed = pager.close();
    await expect(pager.discard(pages(0, 1), { then: 'refetch' })).rejects.toMatchObject({ code: 'CLOSED' });
    await Promise.all([discarded, closed]);
  });

  test('ends although the source left a timer running in the resolver’s thread', async () => {
    const pager = await openGuest({ source: 'lingering' });
    await pager.ensure(pages(0, 1));
    await pager.close();
  });

  test('leaves nothing: every command is refused, no listener is missed, no handle is kept', async () => {
    const before = process.getActiveResourcesInfo().filter((kind) => kind === 'MessagePort').length;
    const pager = await openGuest();
    const listener = (): void => {};
    pager.on('removed', listener);
    await pager.close();
    expect(() => pager.off('removed', listener)).not.toThrow();
    await expect(pager.nameThread(1, 'vmm')).rejects.toMatchObject({ code: 'CLOSED' });
    await expect(pager.ensure(pages(0, 1))).rejects.toMatchObject({ code: 'CLOSED' });
    const after = process.getActiveResourcesInfo().filter((kind) => kind === 'MessagePort').length;
    expect(after).toBe(before);
  });
});

test('two discards of the same pages: they are missing, and fetched', async () => {
  const pager = await openGuest();
  for (let round = 0; round < 20; round++) {
    await pager.ensure(pages(0, 4));
    await Promise.all([
      pager.discard(pages(0, 4), { then: 'refetch' }),
      pager.discard(pages(0, 4), { then: 'refetch' }),
    ]);
    expect(await pager.memory!.read(gpa(0), 1), `round ${round}`).toEqual(Uint8Array.of(contents(0)));
  }
  await pager.close();
});

test('opening that fails halfway leaves no thread and no descriptor', async () => {
  const once = join(folder, 'once');
  const halfway = async (): Promise<void> => {
    writeFileSync(once, '');
    await expect(
      openGuest({ backend: { shards: 2 }, pages: 8192, source: 'once', given: { once } }),
    ).rejects.toMatchObject({ code: 'SOURCE_FAILED' });
  };
  await halfway(); // what loading leaves is left
  const descriptors = readdirSync('/proc/self/fd').length;
  const threads = readdirSync('/proc/self/task').length;
  await halfway();
  expect(readdirSync('/proc/self/fd').length).toBe(descriptors);
  expect(readdirSync('/proc/self/task').length).toBeLessThanOrEqual(threads);
});

describe('a synchronous source that does not come back', () => {
  /** Far less than a test may take, and far more than a read does. */
  const policy = { sourceTimeout_ms: 500, faultAroundPages: 1 };

  test('a fault: waiting accesses fail with an error, and the pager can be closed', async () => {
    const fifo = join(folder, 'fifo');
    execFileSync('mkfifo', [fifo]);
    const fd = openSync(fifo, 'r+');
    const pager = await openGuest({ source: 'stuck', given: { stuck: 32 * PAGE, fd }, policy });
    const stopped = stoppedOf(pager);
    await pager.ensure(pages(0, 4));
    await expect(pager.ensure(pages(40, 1))).rejects.toMatchObject({ code: 'SOURCE_TIMEOUT' });
    expect(await stopped).toEqual(['SOURCE_TIMEOUT', 'poisoned']);
    expect(() => pager.memory!.readBlocking(gpa(50 * PAGE), 1)).toThrow(
      expect.objectContaining({ code: 'PAGE_POISONED' }),
    );
    expect(pager.memory!.readBlocking(gpa(3 * PAGE), 1)).toEqual(Uint8Array.of(contents(3)));
    await pager.close();
    writeSync(fd, 'x'); // the thread that was left behind can end
    closeSync(fd);
  });

  test('when it is asked again after a failure', async () => {
    const pager = await openGuest({ source: 'stuckAtRetry', policy });
    const stopped = stoppedOf(pager);
    await expect(pager.ensure(pages(0, 1))).rejects.toMatchObject({ code: 'SOURCE_TIMEOUT' });
    expect(await stopped).toEqual(['SOURCE_TIMEOUT', 'poisoned']);
    await pager.close();
  });
});
