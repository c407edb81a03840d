import { MessageChannel } from 'node:worker_threads';
import { afterEach, beforeEach, describe, expect, test, type TestContext } from 'vitest';
import { ACCESS_SITES, fileOffset, gpa, openPager, type Pager } from 'demand-paging';
import {
  type Accessor,
  addPage,
  NATIVE_SITES,
  type NativeSite,
  startAccessor,
} from 'demand-paging/accessors';
import { userfaultfd } from 'demand-paging/backends/userfaultfd';
import { memory } from 'demand-paging/sources';
import { ERRNO, pageSize, userfaultfdSupport } from 'demand-paging/linux';

const PAGES = 64;
const size = pageSize();
const contents = new Uint8Array(new SharedArrayBuffer(PAGES * size));
for (const [at] of contents.entries()) contents[at] = (at * 7 + (at >>> 12) * 13) & 0xff;

const page = (index: number): Uint8Array => contents.slice(index * size, (index + 1) * size);

function lacking(): string | undefined {
  try {
    userfaultfdSupport();
    return undefined;
  } catch (error) {
    return String(error);
  }
}

/** Sites where an access that fails says so and does not end the process. */
const MAY_FAIL: readonly NativeSite[] = ['vmm-syscall', 'kernel-copy', 'external-vm-readv'];

describe('accessors of real memory', () => {
  let pager: Pager;
  let started: Accessor[];

  beforeEach(async (context: TestContext) => {
    const reason = lacking();
    if (reason !== undefined) return context.skip(reason);
    started = [];
    pager = await openPager({
      backend: userfaultfd(),
      regions: [
        {
          gpa: gpa(0),
          length: BigInt(PAGES * size),
          sourceOffset: fileOffset(0),
          memory: 'anonymous',
          pageSize: size,
        },
      ],
      source: memory(contents),
      policy: { faultAroundPages: 1 },
    });
  });
  afterEach(async () => {
    await Promise.all((started ?? []).map((accessor) => accessor.stop()));
    await pager?.close({ missing: 'zero' });
  });

  const start = async (site: NativeSite): Promise<Accessor> => {
    const accessor = await startAccessor(site, pager.layout);
    started.push(accessor);
    await pager.nameThread(accessor.thread!, ACCESS_SITES[site]);
    return accessor;
  };

  test.each(NATIVE_SITES)('%s walks every page, in its own class, and sees the contents', async (site) => {
    const accessor = await start(site);
    const report = await accessor.walk({ pages: [{ first: 0, count: PAGES }], order: 'random', seed: 3 });
    let checksum = 0;
    for (let index = 0; index < PAGES; index++) checksum = addPage(checksum, index, page(index));
    expect(report).toMatchObject({
      pages: PAGES,
      bytes: PAGES * size,
      checksum,
      failures: 0,
      interrupted: false,
    });
    expect(report.firstAccess_ms).toBeGreaterThan(0);
    expect(report.slowest_ms).toBeLessThanOrEqual(report.elapsed_ms);
    const statistics = pager.statistics();
    expect(statistics.missingFaults).toBe(PAGES);
    expect(statistics[`${ACCESS_SITES[site]}Faults`]).toBe(PAGES);
    // Only a store asks to write, and it changes nothing.
    expect(statistics.writeFaults).toBe(site === 'vmm-store' && process.arch === 'x64' ? PAGES : 0);
    expect(Buffer.from(await pager.memory!.read(gpa(0), size))).toEqual(Buffer.from(page(0)));
  });

  test.each(NATIVE_SITES.filter((site) => site !== 'vmm-load'))(
    '%s writes what it is given, where it is told',
    async (site) => {
      const accessor = await start(site);
      const bytes = Uint8Array.of(1, 2, 3, 4);
      expect(await accessor.access({ page: 5, offset: 100, bytes })).toMatchObject({ ok: true });
      const expected = page(5);
      expected.set(bytes, 100);
      expect(Buffer.from(await pager.memory!.read(gpa(5 * size), size))).toEqual(Buffer.from(expected));
    },
  );

  test.each(MAY_FAIL)('%s reports EFAULT at a poisoned page, and goes on', async (site) => {
    await pager.poison([{ start: gpa(3 * size), length: BigInt(size) }]);
    const accessor = await start(site);
    expect(await accessor.access({ page: 3, length: 8 })).toEqual({ ok: false, errno: ERRNO.EFAULT });
    expect(await accessor.access({ page: 4, length: 8 })).toEqual({
      ok: true,
      bytes: page(4).subarray(0, 8),
    });
    const report = await accessor.walk({ pages: [{ first: 0, count: 8 }], order: 'sequential', seed: 0 });
    expect(report).toMatchObject({ pages: 7, failures: 1, firstFailure: { page: 3, errno: ERRNO.EFAULT } });
  });

  test('a load does not write, a store does not read, and no access leaves its page', async () => {
    const load = await start('vmm-load');
    const store = await start('vmm-store');
    expect(await load.access({ page: 0, bytes: Uint8Array.of(1) })).toEqual({
      ok: false,
      errno: ERRNO.EINVAL,
    });
    expect(await store.access({ page: 0, length: 1 })).toEqual({ ok: false, errno: ERRNO.EINVAL });
    expect(() => load.access({ page: 0, offset: size - 4, length: 8 })).toThrow(RangeError);
    expect(() => load.access({ page: PAGES, length: 8 })).toThrow(RangeError);
  });

  test('a walk that is interrupted says so', async () => {
    const accessor = await start('vmm-load');
    const walk = accessor.walk({
      pages: Array.from({ length: 5000 }, () => ({ first: 0, count: PAGES })),
      order: 'sequential',
      seed: 0,
    });
    accessor.interrupt();
    const report = await walk;
    expect(report.interrupted).toBe(true);
    expect(report.pages).toBeLessThan(5000 * PAGES);
  });

  test('what it drops comes anew', async () => {
    const accessor = await start('vmm-load');
    const drop = await start('vmm-store');
    await accessor.access({ page: 9, length: 1 });
    await drop.discard!({ first: 9, count: 1 });
    // Removed behind the pager's back: from then on it reads as zeros.
    expect(await accessor.access({ page: 9, length: 4 })).toEqual({ ok: true, bytes: new Uint8Array(4) });
    const other = await start('external-vm-readv');
    await expect(other.discard!({ first: 9, count: 1 })).rejects.toMatchObject({ code: 'NOT_SUPPORTED' });
  });

  test('stopped, it answers no more, and its thread or process is gone', async () => {
    for (const site of NATIVE_SITES) {
      const accessor = await start(site);
      await accessor.stop();
      await accessor.stop();
      await expect(accessor.access({ page: 0, length: 1 })).rejects.toMatchObject({ code: 'HANDLER_DIED' });
      if (site === 'external-vm-readv') expect(() => process.kill(accessor.thread!, 0)).toThrow(/ESRCH/);
    }
  });
});

test('a process that waits for a page that nobody brings is ended all the same', async (context) => {
  const reason = lacking();
  if (reason !== undefined) return context.skip(reason);
  // A source that never answers, on this thread.
  const { port1, port2 } = new MessageChannel();
  const asked = new Promise<void>((resolve) => port1.once('message', () => resolve()));
  const pager = await openPager({
    backend: userfaultfd(),
    regions: [
      { gpa: gpa(0), length: BigInt(size), sourceOffset: fileOffset(0), memory: 'anonymous', pageSize: size },
    ],
    source: { port: port2, length: size, servedHere: true },
  });
  const accessor = await startAccessor('external-vm-readv', pager.layout);
  const access = accessor.access({ page: 0, length: 1 });
  const ended = expect(access).rejects.toMatchObject({ code: 'HANDLER_DIED' });
  await asked; // the kernel has stopped it, and the pager has heard
  await accessor.stop();
  await ended;
  expect(() => process.kill(accessor.thread!, 0)).toThrow(/ESRCH/);
  await pager.close({ missing: 'zero' });
  port1.close();
});
