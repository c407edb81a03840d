import { once } from 'node:events';
import { MessageChannel } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { openSource, type PageSource, servePort } from '../../src/api/index.js';

const MODULE = new URL('./fixtures/source-module.mjs', import.meta.url).href;

const counting = (over: Partial<PageSource> = {}): PageSource => ({
  synchronous: false,
  length: 1024,
  read: (offset, into) => {
    into.forEach((_, i) => (into[i] = offset + i));
    return Promise.resolve(into.length);
  },
  ...over,
});

/** A source behind a port whose other end the test has. */
async function portSource() {
  const { port1, port2 } = new MessageChannel();
  const source = await openSource({ port: port1, length: 1024, servedHere: true });
  return { source, port: port2 };
}

describe('a source behind a port', () => {
  it('of a given length: asynchronous, and gives what is served', async () => {
    const { source, port } = await portSource();
    servePort(port, counting());
    const [a, b] = [new Uint8Array(4), new Uint8Array(2)];
    expect([source.synchronous, source.length]).toEqual([false, 1024]);
    expect(await Promise.all([source.read(8, a), source.read(100, b)])).toEqual([4, 2]);
    expect([[...a], [...b]]).toEqual([
      [8, 9, 10, 11],
      [100, 101],
    ]);
    await source.close!();
  });

  it('answers in any order: each fills its own buffer', async () => {
    const { source, port } = await portSource();
    const asked: { id: number; offset: number; length: number }[] = [];
    port.on('message', (request) => asked.push(request as (typeof asked)[number]));
    const buffers = [0, 1, 2].map(() => new Uint8Array(1));
    const reads = buffers.map((into, i) => source.read(10 * i, into));
    while (asked.length < 3) await once(port, 'message');
    for (const { id, offset } of asked.reverse()) port.postMessage({ id, bytes: Uint8Array.of(offset + 1) });
    expect(await Promise.all(reads)).toEqual([1, 1, 1]);
    expect(buffers.map(([byte]) => byte)).toEqual([1, 11, 21]);
    await source.close!();
  });

  it('an answer that is too long: its count is kept, and nothing is written past the buffer', async () => {
    const { source, port } = await portSource();
    port.on('message', ({ id }: { id: number }) =>
      port.postMessage({ id, bytes: new Uint8Array(9).fill(7) }),
    );
    const whole = new Uint8Array(8);
    expect(await source.read(0, whole.subarray(2, 6))).toBe(9);
    expect([...whole]).toEqual([0, 0, 7, 7, 7, 7, 0, 0]);
    await source.close!();
  });

  it('an answer without a request, or a second one: ignored', async () => {
    const { source, port } = await portSource();
    port.on('message', ({ id }: { id: number }) => {
      port.postMessage({ id: id + 77, bytes: Uint8Array.of(1) });
      port.postMessage({ id, bytes: Uint8Array.of(2) });
      port.postMessage({ id, bytes: Uint8Array.of(3) });
    });
    const into = new Uint8Array(1);
    expect(await source.read(0, into)).toBe(1);
    const other = new Uint8Array(1);
    expect(await source.read(1, other)).toBe(1);
    expect([into[0], other[0]]).toEqual([2, 2]);
    await source.close!();
  });

  it('the other end closes: reads in flight and later ones fail', async () => {
    const { source, port } = await portSource();
    const read = source.read(0, new Uint8Array(1));
    port.close();
    await expect(read).rejects.toMatchObject({ code: 'SOURCE_FAILED' });
    await expect(source.read(0, new Uint8Array(1))).rejects.toMatchObject({ code: 'SOURCE_FAILED' });
  });

  it('closed: reads in flight fail', async () => {
    const { source } = await portSource();
    const read = source.read(0, new Uint8Array(1));
    void source.close!();
    await expect(read).rejects.toMatchObject({ code: 'SOURCE_FAILED' });
  });
});

describe('servePort', () => {
  it.each<[string, PageSource['read'], string]>([
    ['a short answer', () => 3, 'SOURCE_LENGTH'],
    ['no answer at all', () => undefined as never, 'SOURCE_FAILED'],
    ['a rejection', () => Promise.reject(new Error('EIO')), 'SOURCE_FAILED'],
    [
      'a throw',
      () => {
        throw new Error('EIO');
      },
      'SOURCE_FAILED',
    ],
  ])('%s: an error, never contents', async (_, read, code) => {
    const { source, port } = await portSource();
    servePort(port, counting({ read }));
    const into = new Uint8Array(4).fill(9);
    await expect(source.read(0, into)).rejects.toMatchObject({ code });
    expect([...into]).toEqual([9, 9, 9, 9]);
    await source.close!();
  });
});

describe('openSource', () => {
  it('a source of this isolate: taken as it is', async () => {
    const source = counting();
    expect(await openSource(source)).toBe(source);
  });

  it('a module: its export is called with its options', async () => {
    const source = await openSource({ module: MODULE, export: 'open', options: { length: 77 } });
    expect([source.length, source.read(0, new Uint8Array(5))]).toEqual([77, 5]);
  });

  it.each([
    ['a module that is not there', `${MODULE}.not`, 'open'],
    ['an export that is not there', MODULE, 'missing'],
    ['an export that is no function', MODULE, 'notAFunction'],
    ['an export that throws', MODULE, 'throwing'],
  ])('%s: refused', async (_, module, name) => {
    await expect(openSource({ module, export: name, options: {} })).rejects.toMatchObject({
      code: 'SOURCE_FAILED',
    });
  });
});
