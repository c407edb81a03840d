import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';
import { type DemandPagingError, fileOffset, gpa, hva, MemoryLayout } from '../../../src/api/index.js';
import { userfaultfd } from '../../../src/backends/userfaultfd/index.js';
import { ERRNO, hugePagePool, mapMemory, raw } from '../../../src/linux/index.js';
import { lockHugePages, needHugePages } from '../../support/huge-pages.js';
import { HUGE, openOrSkip, openShard, PAGE, region, Scene, skipWithoutUserfaultfd } from './scene.js';

skipWithoutUserfaultfd();

const descriptors = (): number => readdirSync('/proc/self/fd').length;

/** How many mappings are neither inherited nor made of transparent huge pages: ours and no one else's. */
function ourMappings(): number {
  const flags = readFileSync('/proc/self/smaps', 'utf8').matchAll(/^VmFlags: (.*)$/gm);
  return [...flags].filter(([, words]) => words!.includes(' dc') && words!.includes(' nh')).length;
}

const failure = (code: string, rest: Partial<DemandPagingError> = {}): unknown =>
  expect.objectContaining({ code, ...rest });

describe('nothing is left behind', () => {
  test.each(['anonymous', 'shmem'] as const)('%s: descriptors and mappings after close', async (memory) => {
    await (await Scene.open([region(16, memory)]))[Symbol.asyncDispose](); // what is made once is made
    const before = { descriptors: descriptors(), mappings: ourMappings() };
    for (let round = 0; round < 20; round++) {
      const attachment = await userfaultfd({ shards: 2 }).attach(new MemoryLayout([region(8192, memory)]));
      const ports = [openShard(attachment, 0), openShard(attachment, 1)];
      expect(ourMappings()).toBeGreaterThan(before.mappings);
      for (const port of ports) port.close();
      const start = attachment.layout.hvaOf(0).toString(16);
      await attachment.close();
      await attachment.close();
      expect(readFileSync('/proc/self/maps', 'utf8')).not.toContain(`\n${start}-`);
    }
    expect({ descriptors: descriptors(), mappings: ourMappings() }).toEqual(before);
    expect(readFileSync('/proc/self/maps', 'utf8')).not.toContain('memfd:demand-paging');
  });

  test('after a failure half-way: the second region is taken already', async () => {
    using taken = mapMemory({ kind: 'anonymous', length: 4 * PAGE });
    const other = await userfaultfd().attach(
      new MemoryLayout([region(4, 'anonymous', { hva: hva(taken.address) })]),
    );
    const before = { descriptors: descriptors(), mappings: ourMappings() };
    const regions = [
      region(4, 'shmem'),
      region(4, 'anonymous', { gpa: gpa(0x10_0000), hva: hva(taken.address) }),
    ];
    await expect(userfaultfd().attach(new MemoryLayout(regions))).rejects.toEqual(
      failure('ALREADY_REGISTERED', { errno: ERRNO.EBUSY }),
    );
    expect({ descriptors: descriptors(), mappings: ourMappings() }).toEqual(before);
    await other.close();
    const again = await userfaultfd().attach(
      new MemoryLayout([region(4, 'anonymous', { hva: hva(taken.address) })]),
    );
    await again.close();
    expect(taken.bytes(0, 1)[0], 'adopted memory stays mapped').toBe(0);
  });

  test('huge pages go back to the pool', async (context) => {
    using _pool = needHugePages(context, 2, HUGE);
    const { free } = hugePagePool()!;
    await using s = await openOrSkip(context, [region(2, 'hugetlb')]);
    s.resolve({ verb: 'copy', pages: { first: 0, count: 2 }, from: s.stage(1, 0, 2 * HUGE) });
    expect(hugePagePool()!.free).toBe(free - 2);
    s.port.close();
    await s.attachment.close();
    expect(hugePagePool()!.free).toBe(free);
  });
});

describe('refusals', () => {
  test('no huge pages reserved', async (context) => {
    const pool = hugePagePool();
    if (!pool || pool.pageSize !== HUGE) return context.skip('no huge pages of 2 MiB here');
    using _pool = lockHugePages();
    const before = { descriptors: descriptors(), mappings: ourMappings() };
    const attach = userfaultfd().attach(new MemoryLayout([region(hugePagePool()!.free + 1, 'hugetlb')]));
    await expect(attach).rejects.toEqual(
      failure('NO_HUGE_PAGES', {
        errno: ERRNO.ENOMEM,
        hint: expect.stringContaining('nr_hugepages') as string,
      }),
    );
    expect({ descriptors: descriptors(), mappings: ourMappings() }).toEqual(before);
  });

  test('memory that is not mapped, or of the wrong kind or page size', async () => {
    using hole = mapMemory({ kind: 'anonymous', length: 4 * PAGE });
    const { address } = hole;
    hole.dispose();
    const attach = (...regions: ReturnType<typeof region>[]): Promise<unknown> =>
      userfaultfd().attach(new MemoryLayout(regions));
    await expect(attach(region(4, 'anonymous', { hva: hva(address) }))).rejects.toEqual(
      failure('BAD_RANGE', { errno: ERRNO.EINVAL }),
    );
    await expect(attach(region(4, 'guest-memfd'))).rejects.toEqual(failure('NOT_SUPPORTED'));
    await expect(
      attach(region(4, 'anonymous', { pageSize: 4 * PAGE, length: BigInt(16 * PAGE) })),
    ).rejects.toEqual(failure('NOT_SUPPORTED'));
    await expect(attach(region(4, 'hugetlb', { pageSize: PAGE, length: BigInt(PAGE) }))).rejects.toEqual(
      failure('NOT_SUPPORTED'),
    );
    const minor = userfaultfd({ faults: ['missing', 'minor'] }).attach(new MemoryLayout([region(4)]));
    await expect(minor).rejects.toEqual(failure('NOT_SUPPORTED'));
  });

  test.each([
    [{ faults: ['minor'] }],
    [{ faults: ['missing', 'sometimes'] }],
    [{ install: 'continue', faults: ['missing'] }],
    [{ install: 'teleport' }],
    [{ via: 'magic' }],
    [{ shards: 0 }],
    [{ shards: 1.5 }],
    [{ staging_bytes: 4096 }],
    [{ asyncWriteProtect: true }],
    [{ faults: ['missing', 'write-protect', 'rwp'] }],
    [{ events: ['birthday'] }],
  ])('options out of bounds: %j', (options) => {
    expect(() => userfaultfd(options as never)).toThrow(RangeError);
  });

  test('without the privilege: which setting is missing; user-mode-only needs none', () => {
    const program = fileURLToPath(new URL('./fixtures/unprivileged.mjs', import.meta.url));
    const child = spawnSync(process.execPath, [program], {
      encoding: 'utf8',
      cwd: process.cwd(),
      timeout: 20_000,
    });
    expect(child.stderr).toBe('');
    const [either, device, syscall, effect, stops] = JSON.parse(child.stdout) as [
      Seen,
      Seen,
      Seen,
      string,
      string,
    ];
    for (const seen of [either, device, syscall])
      expect(seen).toMatchObject({ code: 'NO_PERMISSION', met: false });
    for (const seen of [either, syscall])
      expect(seen.hint).toMatch(/vm\.unprivileged_userfaultfd=1.*CAP_SYS_PTRACE/);
    expect(device.hint).toMatch(/chmod/i);
    expect(device.remedy).toBe(device.hint);
    expect([effect, stops]).toEqual(['errors', 'mixed']);
  });
});

interface Seen {
  readonly code: string;
  readonly hint: string;
  readonly remedy: string;
}

describe('discard', () => {
  test.each(['anonymous', 'shmem'] as const)(
    '%s: the next access is a missing fault, also where there was poison',
    async (memory) => {
      // Without events: this thread, which would have to read them, is the one that discards.
      await using s = await Scene.open([region(8, memory)], { events: [] });
      s.install(2, 1);
      s.resolve({ verb: 'poison', pages: { first: 3, count: 1 } });
      await s.attachment.discard({ first: 2, count: 2 });
      expect(s.port.resident(2)).toBe(false);
      const values = s.actor.walk(s.at(2), PAGE, 2);
      for (const page of [2, 3]) {
        expect(s.take()).toMatchObject([{ kind: 'missing', page }]);
        s.install(page, 40);
      }
      expect(await values).toBe(80);
    },
  );

  test('huge pages', async (context) => {
    using _pool = needHugePages(context, 2, HUGE);
    await using s = await openOrSkip(context, [region(2, 'hugetlb')], { events: [] });
    s.resolve({ verb: 'copy', pages: { first: 1, count: 1 }, from: s.stage(1, 0, HUGE) });
    await s.attachment.discard({ first: 1, count: 1 });
    const value = s.actor.load(s.at(1));
    expect(s.take()).toMatchObject([{ kind: 'missing', page: 1 }]);
    s.resolve({ verb: 'copy', pages: { first: 1, count: 1 }, from: s.stage(2, 0, HUGE) });
    expect(await value).toBe(2);
  });
});

describe('SIGBUS mode', () => {
  test('accesses fail at once, nobody is told, and the VMM survives', async (context) => {
    await using s = await openOrSkip(context, [region(4)], { sigbus: true });
    expect(s.attachment.supports).toMatchObject({ stops: 'errors', faults: [] });
    const { memory, layout, coverage } = s.attachment;
    const into = new Uint8Array(16);
    expect(() => memory!.load(gpa(PAGE), into)).toThrow(failure('PAGE_MISSING', { errno: ERRNO.EFAULT }));
    expect(() => memory!.store(gpa(PAGE), into)).toThrow(failure('PAGE_MISSING'));
    expect(await s.actor.kernelLoad(s.at(1))).toBe(-ERRNO.EFAULT);
    s.batch.clear();
    expect(s.port.take(s.batch, 'none', 0)).toBe(0);
    s.install(1, 0x44);
    memory!.load(layout.gpaOf(1), into);
    expect(into).toEqual(new Uint8Array(16).fill(0x44));
    memory!.store(gpa(PAGE + 3), Uint8Array.of(1, 2));
    memory!.load(gpa(PAGE), into);
    expect([...into.subarray(2, 6)]).toEqual([0x44, 1, 2, 0x44]);
    // Half of it is there: what could be read was read, and the error says where it ended.
    expect(() => memory!.load(gpa(2 * PAGE - 8), into)).toThrow(
      failure('PAGE_MISSING', { range: { start: BigInt(2 * PAGE), length: 1n } }),
    );
    expect(coverage.find(({ site }) => site === 'vmm-load')).toMatchObject({
      effect: 'errors',
      address: 'none',
    });
  });
});

test('memory accesses outside the regions are refused; across two regions they go on', async () => {
  const regions = [region(2), region(2, 'shmem', { gpa: gpa(2 * PAGE), sourceOffset: fileOffset(0) })];
  await using s = await Scene.open(regions);
  for (let page = 0; page < 4; page++) s.install(page, page + 1);
  const into = new Uint8Array(4 * PAGE);
  s.attachment.memory!.load(gpa(0), into);
  expect([0, 1, 2, 3].map((page) => into[page * PAGE + 5])).toEqual([1, 2, 3, 4]);
  expect(() => s.attachment.memory!.load(gpa(4 * PAGE - 1), new Uint8Array(2))).toThrow(failure('BAD_RANGE'));
  await s.attachment.close();
  expect(() => s.attachment.memory!.load(gpa(0), into)).toThrow(failure('CLOSED'));
});

test('a memory file given by the VMM is mapped at its place and stays the VMM’s', async () => {
  using file = mapMemory({ kind: 'shmem', length: 8 * PAGE });
  const spec = region(4, 'shmem', { file: { fd: file.fd!, offset: fileOffset(2 * PAGE) } });
  const s = await Scene.open([spec]);
  s.install(1, 0x71);
  expect(file.bytes(3 * PAGE, 1)[0]).toBe(0x71);
  await s[Symbol.asyncDispose]();
  expect(raw.pread(file.fd!, file.address, 1, 0), 'still open').toBe(1);
});
