import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  fstatSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import {
  type ModuleSourceRef,
  type OpenSource,
  type PageSource,
  type ReadAnswer,
  type ZeroRange,
} from '../../src/api/index.js';
import { libc } from '../../src/linux/index.js';
import * as sources from '../../src/sources/index.js';
import { file, memory, zero } from '../../src/sources/index.js';

const folder = mkdtempSync(join(tmpdir(), 'sources-'));
afterAll(() => rmSync(folder, { recursive: true }));

const pattern = (length: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => (i * 31 + (i >>> 8)) & 0xff);

/** Opens a reference as another isolate would: its options cloned, its export by name. */
function open(ref: ModuleSourceRef): PageSource {
  expect(ref.module).toBe('demand-paging/sources');
  const opener = (sources as unknown as Record<string, OpenSource<unknown>>)[ref.export]!;
  return opener(structuredClone(ref.options)) as PageSource;
}

/** `zeros`: which bytes the source told of instead of writing them. */
function read(
  source: PageSource,
  offset: number,
  length: number,
): { count: number; bytes: Uint8Array; zeros: readonly ZeroRange[] } {
  const into = new Uint8Array(length).fill(0xee);
  const answer = source.read(offset, into) as ReadAnswer;
  const { length: count, zeros } = typeof answer === 'number' ? { length: answer, zeros: [] } : answer;
  for (const { start, length: bytes } of zeros) into.fill(0, start, start + bytes);
  return { count, bytes: into.subarray(0, count), zeros };
}

function image(name: string, length: number): string {
  const path = join(folder, name);
  writeFileSync(path, pattern(length));
  return path;
}

describe('file', () => {
  test('reads any part; the length is the file’s', () => {
    const source = open(file(image('plain', 10_000)));
    expect(source).toMatchObject({ synchronous: true, length: 10_000 });
    expect(read(source, 0, 10_000).bytes).toEqual(pattern(10_000));
    expect(read(source, 4096, 100).bytes).toEqual(pattern(10_000).subarray(4096, 4196));
    void source.close?.();
  });

  test('begins and ends where it is told', () => {
    const source = open(file(image('part', 10_000), { offset: 1000, length: 500 }));
    expect(source.length).toBe(500);
    expect(read(source, 10, 20).bytes).toEqual(pattern(10_000).subarray(1010, 1030));
    expect(read(source, 490, 20).count).toBe(10);
    expect(read(source, 600, 20).count).toBe(0);
    expect(open(file(image('tail', 10_000), { offset: 9_000 })).length).toBe(1000);
  });

  test('a file that became shorter gives fewer bytes, never zeros', () => {
    const path = image('shrinking', 10_000);
    const source = open(file(path));
    truncateSync(path, 5000);
    expect(read(source, 4096, 4096)).toMatchObject({
      count: 904,
      bytes: pattern(10_000).subarray(4096, 5000),
    });
    expect(read(source, 8000, 100).count).toBe(0);
  });

  test('holes are told of, and not read; at the end of a file that became shorter there are none', (context) => {
    const path = join(folder, 'sparse');
    writeFileSync(path, '');
    truncateSync(path, 1 << 20);
    const fd = openSync(path, 'r+');
    for (const at of [0x1_0000, 0x8_0000]) writeSync(fd, pattern(0x1_0000), 0, 0x1_0000, at);
    if (fstatSync(fd).blocks * 512 >= 1 << 20) context.skip('no sparse files in this file system');
    closeSync(fd);
    const source = open(file(path));
    expect(read(source, 0, 1 << 20)).toMatchObject({
      count: 1 << 20,
      zeros: [
        { start: 0, length: 0x1_0000 },
        { start: 0x2_0000, length: 0x6_0000 },
        { start: 0x9_0000, length: 0x7_0000 },
      ],
    });
    expect(Buffer.compare(read(source, 0, 1 << 20).bytes, readFileSync(path))).toBe(0);
    expect(read(source, 0x1_8000, 0x1_0000).zeros).toEqual([{ start: 0x8000, length: 0x8000 }]);
    expect(read(source, 0x8_1000, 0x1000)).toMatchObject({ count: 0x1000, zeros: [] });
    expect(read(open(file(path, { offset: 0x1_0000 })), 0, 0x2_0000).zeros).toEqual([
      { start: 0x1_0000, length: 0x1_0000 },
    ]);
    // By a descriptor of the caller's, whose offset stays where it is.
    const own = openSync(path, 'r');
    const before = readFileSync(`/proc/self/fdinfo/${own}`, 'utf8');
    const byDescriptor = open(file(own));
    expect(read(byDescriptor, 0, 0x2_0000).zeros).toEqual([{ start: 0, length: 0x1_0000 }]);
    expect(readFileSync(`/proc/self/fdinfo/${own}`, 'utf8')).toBe(before);
    void byDescriptor.close?.();
    closeSync(own);
    truncateSync(path, 0xa_0000);
    expect(read(source, 0x9_0000, 0x1_0000)).toMatchObject({ count: 0x1_0000 });
    expect(read(source, 0x9_8000, 0x1_0000)).toMatchObject({ count: 0x8000, zeros: [] });
    expect(read(source, 0xa_0000, 0x1_0000)).toMatchObject({ count: 0, zeros: [] });
  });

  test('what cannot be opened is SOURCE_FAILED; a closed one refuses', () => {
    expect(() => open(file(join(folder, 'nothing')))).toThrow(
      expect.objectContaining({ code: 'SOURCE_FAILED' }),
    );
    expect(() => open(file(folder))).toThrow(expect.objectContaining({ code: 'SOURCE_FAILED' }));
    const source = open(file(image('closed', 100)));
    void source.close?.();
    void source.close?.();
    expect(() => source.read(0, new Uint8Array(1))).toThrow(expect.objectContaining({ code: 'CLOSED' }));
  });

  test('a FIFO, directory, socket or character device is refused at once, and named', async () => {
    const fifo = join(folder, 'fifo');
    execFileSync('mkfifo', [fifo]);
    const socket = join(folder, 'socket');
    await using server = createServer().listen(socket);
    await once(server, 'listening');
    for (const [path, kind] of [
      [fifo, 'a FIFO'],
      [folder, 'a directory'],
      [socket, 'a socket'],
      ['/dev/zero', 'a character device'],
      ['/dev/tty', 'a character device'],
    ] as const) {
      const refused = { code: 'SOURCE_FAILED', message: expect.stringContaining(`it is ${kind}`) as string };
      expect(() => open(file(path, { length: 4096 })), path).toThrow(expect.objectContaining(refused));
    }
    const descriptor = openSync(folder, 'r');
    expect(() => open(file(descriptor))).toThrow(/a directory/);
    closeSync(descriptor);
    expect(() => open(file(99_999))).toThrow(expect.objectContaining({ code: 'SOURCE_FAILED', errno: 9 }));
    const absent = { code: 'SOURCE_FAILED', errno: 2, message: expect.stringContaining('ENOENT') as string };
    expect(() => open(file('/nope'))).toThrow(expect.objectContaining(absent));
  });

  test('a link to a file is the file, one to a FIFO is refused', () => {
    const link = join(folder, 'link');
    symlinkSync(image('linked', 4096), link);
    expect(open(file(link)).length).toBe(4096);
    const fifo = join(folder, 'fifo-behind-a-link');
    execFileSync('mkfifo', [fifo]);
    symlinkSync(fifo, `${link}-to-fifo`);
    expect(() => open(file(`${link}-to-fifo`))).toThrow(/a FIFO/);
  });

  test.each([{ offset: -1 }, { offset: 0.5 }, { length: -4096 }, { length: NaN }])(
    'bounds: %j',
    (options) => {
      expect(() => file('x', options)).toThrow(RangeError);
    },
  );
});

describe('zero', () => {
  test('is zeros to its end', () => {
    const source = open(zero(5000));
    expect(read(source, 4000, 1000).bytes).toEqual(new Uint8Array(1000));
    expect(read(source, 4000, 1000).zeros).toEqual([{ start: 0, length: 1000 }]);
    expect(read(source, 4500, 1000).count).toBe(500);
    expect(read(source, 6000, 1000).count).toBe(0);
    expect(() => zero(-1)).toThrow(RangeError);
  });
});

describe('memory', () => {
  test('shared memory is read and can be installed from where it lies', () => {
    const shared = new SharedArrayBuffer(8192);
    new Uint8Array(shared).set(pattern(8192));
    const source = open(memory(shared));
    expect(read(source, 100, 50).bytes).toEqual(pattern(8192).subarray(100, 150));
    expect(read(source, 8000, 500).count).toBe(192);
    expect(source.address!(8000, 500)).toBeUndefined();
    const start = source.address!(0, 8192)!;
    expect(source.address!(4096, 100)).toBe(start + 4096);
    const native = open(memory({ address: start + 4096, length: 4096 }));
    expect(read(native, 0, 4096).bytes).toEqual(pattern(8192).subarray(4096));
  });

  test('pages of zeros are told of, and have no address to be copied from', () => {
    const shared = new SharedArrayBuffer(8 * 4096);
    const bytes = new Uint8Array(shared);
    for (const page of [1, 4]) bytes.set(pattern(4096), page * 4096);
    bytes[6 * 4096 + 77] = 1; // not at a place that is looked at first
    const native = memory({ address: libc().addressOf(bytes), length: bytes.length });
    for (const source of [open(memory(shared)), open(memory(bytes.slice())), open(native)]) {
      const { count, bytes: read_, zeros } = read(source, 0, bytes.length);
      expect([count, Buffer.compare(read_, bytes)]).toEqual([bytes.length, 0]);
      expect(zeros).toEqual([
        { start: 0, length: 4096 },
        { start: 2 * 4096, length: 2 * 4096 },
        { start: 5 * 4096, length: 4096 },
        { start: 7 * 4096, length: 4096 },
      ]);
      if (!source.address) continue;
      expect(source.address(0, 2 * 4096)).toBeUndefined();
      expect(source.address(4096, 4096)).toBeTypeOf('number');
      expect(source.address(6 * 4096, 4096)).toBeTypeOf('number');
    }
  });

  test('ordinary bytes are copied, and have no address to rely on', () => {
    const bytes = pattern(5000);
    const source = open(memory(bytes));
    bytes.fill(0);
    expect(read(source, 0, 5000).bytes).toEqual(pattern(5000));
    expect(source.address).toBeUndefined();
  });

  test('native memory has an address and an end', () => {
    const shared = new SharedArrayBuffer(4096);
    new Uint8Array(shared).set(pattern(4096));
    const start = open(memory(shared)).address!(0, 4096)!;
    const source = open(memory({ address: start, length: 4000 }));
    expect(source.length).toBe(4000);
    expect(read(source, 3900, 200).count).toBe(100);
    expect(read(source, 4000, 200).count).toBe(0);
    expect(source.address!(3900, 200)).toBeUndefined();
    expect(source.address!(96, 3904)).toBe(start + 96);
    void source.close?.();
  });

  test('anything else is refused', () => {
    expect(() => memory('text' as never)).toThrow(TypeError);
    expect(() => memory({ address: -1, length: 1 })).toThrow(RangeError);
    expect(() => memory({ address: 4096, length: 1.5 })).toThrow(RangeError);
  });
});
