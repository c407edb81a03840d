import { once } from 'node:events';
import { readlinkSync } from 'node:fs';
import { MessageChannel, Worker } from 'node:worker_threads';
import { describe, expect, test } from 'vitest';
import {
  type DemandPagingError,
  hva,
  openPager,
  type Pager,
  type PagerOptions,
} from '../../../src/api/index.js';
import { adopt, userfaultfd } from '../../../src/backends/userfaultfd/index.js';
import { mapMemory, type Mapping, UFFD_REGISTER_MODE, Userfaultfd } from '../../../src/linux/index.js';
import { PAGE, region, skipWithoutUserfaultfd } from '../userfaultfd/scene.js';
import { contents, openGuest, PAGES } from './guest.js';

skipWithoutUserfaultfd();

const source = (name: string, options: object = {}): PagerOptions['source'] => ({
  module: new URL('./fixtures/source.mjs', import.meta.url).href,
  export: name,
  options: { length: PAGES * PAGE, ...options },
});

/** What a thread reads of page 3, which it waits for: a byte or -errno. */
async function read(memory: Mapping): Promise<unknown> {
  const workerData = { pid: process.pid, address: memory.address + 3 * PAGE };
  const reader = new Worker(new URL('./fixtures/reader.mjs', import.meta.url), { workerData });
  const [result] = (await once(reader, 'message')) as unknown[];
  return result;
}

/** Memory that is registered with a userfaultfd, as another process would hand it over. */
function registered(): { readonly memory: Mapping; readonly fd: number } {
  const memory = mapMemory({ kind: 'anonymous', length: PAGES * PAGE });
  const uffd = Userfaultfd.open({ features: 0 });
  uffd.register(memory.address, memory.length, UFFD_REGISTER_MODE.MISSING);
  return { memory, fd: uffd.fd };
}

function isUserfaultfd(fd: number): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`) === 'anon_inode:[userfaultfd]';
  } catch {
    return false; // not open
  }
}

const openAdopted = (
  { memory, fd }: ReturnType<typeof registered>,
  given: Partial<PagerOptions> = {},
): Promise<Pager> =>
  openPager({
    backend: adopt({ uffd: fd }),
    regions: [region(PAGES, 'anonymous', { hva: hva(memory.address) })],
    source: source('open'),
    needs: [],
    ...given,
  });

const FAILURES: readonly [string, string, () => Partial<PagerOptions>][] = [
  ['an image that is too small', 'BAD_RANGE', () => ({ source: source('open', { length: PAGE }) })],
  ['a source that does not open', 'SOURCE_FAILED', () => ({ source: source('refusing') })],
  ['a source that is none', 'SOURCE_FAILED', () => ({ source: source('odd', { what: 17 }) })],
  [
    'a source whose opening never settles',
    'SOURCE_TIMEOUT',
    () => ({ source: source('pending'), policy: { openTimeout_ms: 100 } }),
  ],
  [
    'a source whose opening does not come back',
    'SOURCE_TIMEOUT',
    () => ({ source: source('hanging'), policy: { openTimeout_ms: 100 } }),
  ],
  ['options that cannot be cloned', 'NOT_SUPPORTED', () => ({ source: source('open', { key: () => {} }) })],
  ['a policy that it cannot carry out', 'NOT_SUPPORTED', () => ({ policy: { onSourceFailure: 'fail' } })],
];

describe.each(FAILURES)('opening adopted memory with %s', (_, code, options) => {
  test(`is ${code}: an access that waits fails, and nothing is left`, async () => {
    const adopted = registered();
    const result = read(adopted.memory);
    const before = process.getActiveResourcesInfo().filter((kind) => kind === 'MessagePort').length;
    await expect(openAdopted(adopted, options())).rejects.toMatchObject({ code });
    expect(await result).toBe(-14);
    expect(
      process.getActiveResourcesInfo().filter((kind) => kind === 'MessagePort').length,
    ).toBeLessThanOrEqual(before);
    expect(isUserfaultfd(adopted.fd)).toBe(false);
    adopted.memory.dispose();
  });

  test(`handed back: an access that waits is served when it is opened anew`, async () => {
    const adopted = registered();
    const result = read(adopted.memory);
    await expect(openAdopted(adopted, { ...options(), onOpenFailure: 'hand-back' })).rejects.toMatchObject({
      code,
    });
    const pager = await openAdopted(adopted);
    expect(await result).toBe(contents(3));
    await pager.close();
    adopted.memory.dispose();
  });
});

test('memory of the VMM’s own: poisoned when opening fails, or plain again where that was asked', async () => {
  for (const onOpenFailure of ['poison', 'hand-back'] as const) {
    using memory = mapMemory({ kind: 'anonymous', length: PAGES * PAGE });
    const opened = openPager({
      backend: userfaultfd(),
      regions: [region(PAGES, 'anonymous', { hva: hva(memory.address) })],
      source: source('refusing'),
      onOpenFailure,
    });
    await expect(opened).rejects.toMatchObject({ code: 'SOURCE_FAILED' });
    expect(await read(memory), onOpenFailure).toBe(onOpenFailure === 'poison' ? -14 : 0);
  }
});

test('an opening that is aborted rejects with the reason, before it begins or while the source opens', async () => {
  const reason = new Error('the guest is not wanted any more');
  const options = {
    backend: userfaultfd(),
    regions: [region(PAGES)],
    source: source('hanging'),
  };
  await expect(openPager({ ...options, signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
  const controller = new AbortController();
  const opened = openPager({ ...options, signal: controller.signal });
  setImmediate(() => controller.abort(reason));
  await expect(opened).rejects.toBe(reason);
});

test('a signal that is aborted after it has opened changes nothing', async () => {
  const controller = new AbortController();
  const pager = await openPager({
    backend: userfaultfd(),
    regions: [region(PAGES)],
    source: source('open'),
    signal: controller.signal,
  });
  controller.abort();
  expect(pager.memory!.readBlocking(pager.layout.regions[0]!.gpa, 1)).toEqual(Uint8Array.of(contents(0)));
  await pager.close();
});

test('a failed opening never loses its cause, and the cause comes with its stack', async () => {
  for (let round = 0; round < 30; round++) {
    const error = await openGuest({ source: 'refusing' }).then(
      () => undefined,
      (thrown: DemandPagingError) => thrown,
    );
    expect(error, `round ${round}`).toMatchObject({ code: 'SOURCE_FAILED' });
    expect(error!.cause).toMatchObject({ name: 'Error', message: 'no such bucket', code: 'ENOENT' });
    expect((error!.cause as Error).stack).toMatch(/at refusing .*source\.mjs/);
  }
});

test.each([undefined, NaN, -1, Infinity, 1.5, '4096'])(
  'a source of length %s is refused, and says so',
  async (length) => {
    await expect(openGuest({ source: 'odd', given: { length } })).rejects.toMatchObject({
      code: 'SOURCE_FAILED',
      message: expect.stringContaining(`its length is ${length}`) as string,
    });
  },
);

test('a port that cannot be handed over is refused, and the process is not kept alive by it', async () => {
  const { port1, port2 } = new MessageChannel();
  port2.close();
  const used = new MessageChannel();
  used.port1.postMessage(port1, [port1]); // it is another thread's already
  await expect(
    openPager({
      backend: userfaultfd(),
      regions: [region(PAGES)],
      source: { port: port1, length: PAGES * PAGE, servedHere: true },
    }),
  ).rejects.toMatchObject({ code: 'NOT_SUPPORTED' });
  used.port1.close();
});
