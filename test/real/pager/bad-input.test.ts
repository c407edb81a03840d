import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { MessageChannel } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { type DemandPagingError, fileOffset, gpa, openPager, type Pager } from '../../../src/api/index.js';
import { startAccessor } from '../../../src/accessors/index.js';
import { userfaultfd } from '../../../src/backends/userfaultfd/index.js';
import { FALLOC, MADV, mapMemory, raw } from '../../../src/linux/index.js';
import { PAGE, region, skipWithoutUserfaultfd } from '../userfaultfd/scene.js';
import { contents, openGuest, pages, PAGES } from './guest.js';

skipWithoutUserfaultfd();

const failure = (code: string) => expect.objectContaining({ code }) as DemandPagingError;

const stoppedOf = (pager: Pager): Promise<DemandPagingError> =>
  new Promise((resolve) => pager.once('stopped', resolve));

test.each([
  ['short', 'SOURCE_LENGTH'],
  ['long', 'SOURCE_LENGTH'],
  ['nothing', 'SOURCE_FAILED'],
  ['throwing', 'SOURCE_FAILED'],
  ['promising', 'SOURCE_FAILED'],
])('a source that answers wrongly (%s): %s; the access fails and reads no zeros', async (source, code) => {
  const pager = await openGuest({ source, policy: { retries: 1, retryDelay_ms: 1 } });
  const stopped = stoppedOf(pager);
  expect(() => pager.memory!.readBlocking(gpa(5 * PAGE), 1)).toThrow(failure('PAGE_POISONED'));
  expect(await stopped).toMatchObject({ code });
  expect(() => pager.memory!.readBlocking(gpa(40 * PAGE), 1)).toThrow(failure('PAGE_POISONED'));
  await expect(pager.ensure(pages(6, 1))).rejects.toEqual(failure('STOPPED'));
  await pager.close();
});

/** What drops page 3 without a word to the pager: of private memory, and of a file. */
const PUNCHED = [
  ['anonymous', (address: number) => raw.madvise(address, PAGE, MADV.DONTNEED)],
  [
    'shmem',
    (_: number, fd: number) => raw.fallocate(fd, FALLOC.PUNCH_HOLE | FALLOC.KEEP_SIZE, 3 * PAGE, PAGE),
  ],
] as const;

test.each(PUNCHED)(
  'memory punched without the pager (%s): PAGE_VANISHED, not zeros',
  async (memory, punch) => {
    using file = mapMemory({ kind: 'shmem', length: PAGES * PAGE });
    const fd = file.fd!;
    const pager = await openPager({
      backend: userfaultfd({ events: [] }),
      regions: [
        { ...region(PAGES, memory), ...(memory === 'shmem' && { file: { fd, offset: fileOffset(0) } }) },
      ],
      source: {
        module: new URL('./fixtures/source.mjs', import.meta.url).href,
        export: 'open',
        options: { length: PAGES * PAGE },
      },
    });
    const stopped = stoppedOf(pager);
    await pager.ensure(pages(0, 8));
    expect(punch(Number(pager.layout.hvaOf(3)), fd)).toBe(0);
    expect(() => pager.memory!.readBlocking(gpa(3 * PAGE), 1)).toThrow(failure('PAGE_POISONED'));
    expect(await stopped).toMatchObject({
      code: 'PAGE_VANISHED',
      hint: expect.stringMatching(/discard\(/) as string,
    });
    expect(pager.memory!.readBlocking(gpa(4 * PAGE), 1)).toEqual(Uint8Array.of(contents(4)));
    await pager.close();
  },
);

test('a write-protected page of a file punched without the pager: PAGE_VANISHED, no endless wait', async () => {
  using file = mapMemory({ kind: 'shmem', length: PAGES * PAGE });
  const fd = file.fd!;
  const pager = await openPager({
    backend: userfaultfd({ events: [], faults: ['missing', 'write-protect'] }),
    regions: [{ ...region(PAGES, 'shmem'), file: { fd, offset: fileOffset(0) } }],
    source: {
      module: new URL('./fixtures/source.mjs', import.meta.url).href,
      export: 'open',
      options: { length: PAGES * PAGE },
    },
  });
  const stopped = stoppedOf(pager);
  const accessor = await startAccessor('kernel-copy', pager.layout);
  await pager.ensure(pages(0, 8));
  await pager.writeProtect(pages(0, 8));
  expect(raw.fallocate(fd, FALLOC.PUNCH_HOLE | FALLOC.KEEP_SIZE, 3 * PAGE, PAGE)).toBe(0);
  const read = accessor.access({ page: 3, length: 1 });
  expect(await stopped).toMatchObject({ code: 'PAGE_VANISHED' });
  expect(await read).toMatchObject({ ok: false });
  expect(await accessor.access({ page: 4, length: 1 })).toMatchObject({ bytes: Uint8Array.of(contents(4)) });
  await accessor.stop();
  await pager.close();
});

test('a source on the thread that would wait for it: a blocking access is refused, an asynchronous one served', async () => {
  const { port1, port2 } = new MessageChannel();
  const pager = await openPager({
    backend: userfaultfd(),
    regions: [region(4)],
    source: { port: port1, length: 4 * PAGE, servedHere: true },
  });
  port2.on('message', ({ id, length }: { id: number; length: number }) =>
    port2.postMessage({ id, bytes: new Uint8Array(length).fill(7) }),
  );
  expect(() => pager.memory!.readBlocking(gpa(0), 1)).toThrow(failure('DEADLOCK'));
  expect(await pager.memory!.read(gpa(0), 1)).toEqual(Uint8Array.of(7));
  expect(pager.memory!.readBlocking(gpa(0), 1)).toEqual(Uint8Array.of(7)); // it is there
  await pager.close();
});

test('an access to a page that this thread holds: refused, does not wait for itself', async () => {
  const pager = await openGuest();
  await pager.freeze(pages(1, 1));
  expect(() => pager.memory!.readBlocking(gpa(PAGE), 1)).toThrow(failure('DEADLOCK'));
  await pager.thaw(pages(1, 1));
  expect(pager.memory!.readBlocking(gpa(PAGE), 1)).toEqual(Uint8Array.of(contents(1)));
  const discarding = pager.discard(pages(0, 2), { then: 'refetch' });
  let refused = false;
  for (let over = false; !over && !refused;) {
    void discarding.then(() => (over = true));
    try {
      pager.memory!.readBlocking(gpa(PAGE), 1);
    } catch (error) {
      expect(error).toEqual(failure('DEADLOCK'));
      refused = true;
    }
    await new Promise((resolve) => setImmediate(resolve));
  }
  await discarding;
  expect(refused).toBe(true);
  expect(pager.memory!.readBlocking(gpa(PAGE), 1)).toEqual(Uint8Array.of(contents(1)));
  await pager.close();
});

test('a region that another pager has is refused, and that one goes on', async () => {
  const pager = await openGuest();
  const hva = pager.layout.hvaOf(0);
  const second = openPager({
    backend: userfaultfd(),
    regions: [{ ...region(PAGES), hva }],
    source: {
      module: new URL('./fixtures/source.mjs', import.meta.url).href,
      export: 'open',
      options: { length: PAGES * PAGE },
    },
  });
  await expect(second).rejects.toEqual(failure('ALREADY_REGISTERED'));
  expect(pager.memory!.readBlocking(gpa(9 * PAGE), 1)).toEqual(Uint8Array.of(contents(9)));
  await pager.close();
});

test('without the device node: NO_DEVICE where it was chosen, the system call otherwise', (context) => {
  const program = fileURLToPath(new URL('./fixtures/open-via.mjs', import.meta.url));
  // A mount namespace of its own, in which /dev has nothing.
  const command = 'mount -t tmpfs none /dev && exec "$0" "$1"';
  const child = spawnSync('unshare', ['--mount', 'sh', '-c', command, process.execPath, program], {
    encoding: 'utf8',
    cwd: process.cwd(),
    timeout: 20_000,
  });
  if (child.error || /unshare|mount:/.test(child.stderr))
    return context.skip(`no mount namespace to hide /dev in: ${child.error?.message ?? child.stderr.trim()}`);
  const [device, auto] = child.stdout.trim().split('\n');
  expect(JSON.parse(device!)).toMatchObject({
    code: 'NO_DEVICE',
    message: expect.stringContaining('/dev/userfaultfd') as string,
    hint: expect.stringMatching(/\S/) as string,
  });
  expect(auto).toBe('opened');
});
