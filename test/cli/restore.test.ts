import { probeGuest } from 'demand-paging/guests';
import { appendFileSync, mkdirSync, truncateSync, writeFileSync } from 'node:fs';
import { afterAll, describe, expect, test } from 'vitest';
import { hugePagePool, reserveHugePages, userfaultfdSupport } from 'demand-paging/linux';
import { reserveLocked } from '../support/huge-pages.js';
import { cli, type CliEnd, CliRun, nobody, vectors, widest, Workplace } from './cli.js';

interface Document {
  readonly ok: boolean;
  readonly error?: { code: string; message: string; hint: string | null };
  readonly image: { path: string | null; base: string; bytes: number };
  readonly vector: string | null;
  readonly backend: { name: string; fallback?: { from: string; why: string; remedy: string } };
  readonly pages: Record<
    'all' | 'present' | 'demand' | 'around' | 'prefetch' | 'ensured' | 'zero' | 'raced',
    number
  >;
  readonly firstAccess_ms: number;
  readonly complete_ms: number;
  readonly accessors: readonly {
    site: string;
    order: string;
    pages: number;
    right: boolean;
    failures: number;
  }[];
  readonly its: {
    accesses: readonly { page: string; kind: string; structure: string; missed: boolean; wait_ms: number }[];
    order: { agree: number; recorded: number };
    differences: readonly string[];
    entries: number;
  } | null;
  readonly statistics: Record<string, number>;
  readonly verify: { bytes: number; wrong_bytes: number; changed_bytes: number };
  readonly leaks: Record<string, unknown>;
}

const place = new Workplace();
afterAll(() => place[Symbol.dispose]());

/** Runs `restore --json` to its end; what it said, and nothing may be left of it. */
async function restore(...args: string[]): Promise<{ end: CliEnd; document: Document }> {
  const end = await cli(['restore', '--json', ...args], place.options);
  expect(place.leftFiles()).toEqual([]);
  expect(place.leftProcesses()).toEqual([]);
  return { end, document: JSON.parse(end.stdout) as Document };
}

/** Everything that holds of a restore that went well, whatever its options. */
function expectRight({ end, document }: { end: CliEnd; document: Document }): void {
  const { pages, verify, leaks, accessors } = document;
  expect(end.stderr).toBe('');
  expect(document.ok).toBe(true);
  expect(end.status).toBe(0);
  const { demand, around, prefetch, ensured, zero, raced } = pages;
  expect(demand + around + prefetch + ensured + zero + raced).toBe(pages.all);
  expect(pages.present).toBe(pages.all);
  expect(verify).toMatchObject({ bytes: document.image.bytes, wrong_bytes: 0 });
  expect(leaks).toEqual({ descriptors: 0, descriptorsOf: [], threads: 0, mappings: 0, processes: 0 });
  for (const accessor of accessors) expect(accessor).toMatchObject({ right: true, failures: 0 });
}

/** Why userfaultfd is unavailable here, if it is. */
function lacking(): string | undefined {
  try {
    userfaultfdSupport();
    return undefined;
  } catch (error) {
    return String(error);
  }
}

describe('restore', () => {
  test('without arguments brings a recorded VM on demand, its GIC and ITS through missing pages', async () => {
    const run = await restore();
    expectRight(run);
    const { backend, its, accessors, pages, vector, statistics } = run.document;
    expect(backend.name).toBe(lacking() === undefined ? 'userfaultfd' : 'memory');
    expect(vector).toBe('B-060');
    const seen = new Set(accessors.map(({ site }) => site));
    // Real vCPUs are among them wherever the memory is real and there is a KVM for them.
    const vcpus = backend.name === 'userfaultfd' && probeGuest({ backend: 'memslot-hole' }).met;
    expect(seen.size).toBe(vcpus ? 7 : 5);
    expect(seen.has('vcpu-load')).toBe(vcpus);
    expect(new Set(accessors.map(({ order }) => order)).size).toBe(2);
    expect(pages.demand).toBeGreaterThan(0);
    expect(pages.ensured).toBeGreaterThan(0);
    expect(its).toMatchObject({ differences: [], entries: 10, order: { agree: 65, recorded: 65 } });
    expect(its!.accesses.filter(({ missed }) => missed).length).toBeGreaterThan(0);
    for (const { missed, wait_ms, structure } of its!.accesses) {
      expect(wait_ms > 0).toBe(missed);
      expect(structure).not.toBe('?');
    }
    if (backend.name !== 'userfaultfd') return;
    // Each class has its threads, and the kernel says whose faults were whose.
    const { vcpuFaults, kernelFaults, vmmFaults, externalFaults, missingFaults, unattributedFaults } =
      statistics as Record<string, number>;
    expect(unattributedFaults).toBe(0);
    expect(vcpuFaults! + kernelFaults! + vmmFaults! + externalFaults!).toBe(missingFaults);
  });

  test('in text says the same, inside 80 columns', async () => {
    const { status, stdout, stderr } = await cli(['restore', '--accesses'], place.options);
    expect(stdout).toMatch(
      /^checked 50 331 648 bytes: all right \(32 changed, as by the recorded kernel\)$/m,
    );
    expect(stdout).toMatch(/^closed: no descriptor, thread, mapping or process is left$/m);
    expect(stdout).toMatch(/^ {2}0x880050000 +collection-table +R +(missing|present)/m);
    expect(stdout).toMatch(/^ {2}first touches in the order of the recorded kernel: 65 of 65$/m);
    expect(widest(stdout)).toBeLessThanOrEqual(80);
    expect(stderr).toBe('');
    expect(status).toBe(0);
  });

  test('--quiet says nothing', async () => {
    expect(await cli(['restore', '--quiet'], place.options)).toMatchObject({
      status: 0,
      stdout: '',
      stderr: '',
    });
  });

  test.each([
    ['the model', ['--backend', 'memory']],
    ['a memory file', ['--memory', 'shmem']],
    ['a remote source', ['--latency', '2']],
    ['spinning', ['--spin']],
    ['page by page', ['--fault-around', '1', '--accessors', '2', '--seed', '7']],
    ['more accessors than sites', ['--accessors', '9']],
    ['nobody but the GIC', ['--accessors', '0', '--no-prefetch']],
    ['another vector, with two memslots', ['--vector', `${vectors('A')}#A-050`]],
  ])('goes as well with %s', async (_what, args) => {
    expectRight(await restore(...args));
  });

  test('without prefetch brings nothing ahead of time', async () => {
    const run = await restore('--no-prefetch');
    expectRight(run);
    expect(run.document.pages.prefetch).toBe(0);
  });

  test('takes its pages from huge pages, and says how many are lacking', async (context) => {
    if (lacking() !== undefined) return context.skip('no userfaultfd');
    const pool = hugePagePool();
    if (pool === undefined) return context.skip('this kernel has no huge pages');
    if (process.getuid?.() !== 0) return context.skip('only root may reserve huge pages');
    using _reserved = reserveLocked(0);
    if (hugePagePool()!.free === 0) {
      const { end, document } = await restore('--memory', 'hugetlb');
      expect(document.error).toMatchObject({
        code: 'NO_HUGE_PAGES',
        hint: expect.stringContaining(`hugepages-${pool.pageSize / 1024}kB/nr_hugepages`),
      });
      expect(end.status).toBe(1);
    }
    using _pages = reserveHugePages((48 * 1024 * 1024) / pool.pageSize);
    const run = await restore('--memory', 'hugetlb');
    expectRight(run);
    expect(run.document.pages.all).toBe((48 * 1024 * 1024) / pool.pageSize);
    expect(run.document.its).toMatchObject({ differences: [], order: { agree: 65 } });
  });

  test('takes an image of anybody, at an address of choice', async () => {
    const image = place.path('own.img');
    const bytes = Buffer.alloc(3 * 65536);
    for (let at = 0; at < bytes.length; at += 4) bytes.writeUInt32LE((at * 2_654_435_761) % 2 ** 32, at);
    writeFileSync(image, bytes);
    const run = await restore(image, '--base', '0x40000000');
    expectRight(run);
    expect(run.document).toMatchObject({
      image: { path: image, base: '0x40000000', bytes: bytes.length },
      its: null,
      vector: null,
    });
  });
});

describe('restore refuses', () => {
  test.each([
    [
      'an image of no whole pages',
      (path: string) => writeFileSync(path, Buffer.alloc(4097)),
      [],
      /error BAD_ALIGNMENT: .*4097 bytes/,
    ],
    ['an empty image', (path: string) => writeFileSync(path, ''), [], /error BAD_IMAGE: .* is empty/],
    ['a folder', (path: string) => void mkdirSync(path), [], /error (BAD_IMAGE|SOURCE_FAILED): /],
    ['no image at all', () => {}, [], /error SOURCE_FAILED: .*ENOENT/],
    [
      'an unaligned base',
      (path: string) => writeFileSync(path, Buffer.alloc(65536)),
      ['--base', '0x40000010'],
      /error BAD_ALIGNMENT: the base 0x40000010/,
    ],
    [
      'an unknown vector',
      (path: string) => writeFileSync(path, Buffer.alloc(65536)),
      ['--vector', `${vectors('B')}#B-999`],
      /error BAD_IMAGE: .*B-999/,
    ],
  ])('%s', async (what, make, args, message) => {
    const image = place.path(`${what.replaceAll(' ', '-')}.img`);
    make(image);
    const { status, stdout, stderr } = await cli(['restore', image, ...args], place.options);
    expect(stderr).toMatch(message);
    expect(stdout).toBe('');
    expect(status).toBe(1);
  });

  test('an image whose tables are not those of the vector: the restored state differs', async () => {
    const image = place.path('other.img');
    writeFileSync(image, Buffer.alloc(16 * 1024 * 1024));
    const { end, document } = await restore(image, '--vector', `${vectors('B')}#B-060`);
    expect(document.ok).toBe(false);
    expect(document.its!.differences).not.toEqual([]);
    expect(end.status).toBe(1);
  });

  test('a source failure policy that the backend cannot follow', async (context) => {
    if (lacking() !== undefined) return context.skip('no userfaultfd');
    const { end, document } = await restore('--policy', 'fail', '--backend', 'userfaultfd');
    expect(document.error).toMatchObject({ code: 'NOT_SUPPORTED' });
    expect(end.status).toBe(1);
    expect(end.stderr).toContain('error NOT_SUPPORTED: ');
  });
});

/** An image that takes long enough to come that something can happen meanwhile. */
function slow(name: string): { image: string; args: string[] } {
  const image = place.path(name);
  writeFileSync(image, Buffer.alloc(64 * 1024 * 1024, 0x5a));
  return { image, args: ['restore', image, '--no-prefetch', '--latency', '40', '--fault-around', '1'] };
}

/** Shown while pages are coming, once a second. */
const UNDER_WAY = /^[\d ]+ of 16 384 pages: /m;

describe('restore, while it goes on', () => {
  test.each(['userfaultfd', 'memory'])(
    'says that the image was truncated, and ends (%s)',
    async (backend) => {
      if (backend === 'userfaultfd' && lacking() !== undefined) return;
      const { image, args } = slow(`truncated-${backend}.img`);
      const run = new CliRun([...args, '--backend', backend], place.options);
      await run.shows(UNDER_WAY);
      truncateSync(image, 4096);
      const { status, stderr } = await run.ended;
      expect(stderr).toMatch(/^error SOURCE_LENGTH: the source gave 0 bytes where 4096 were asked/m);
      expect(stderr).toMatch(/^hint: Was the image truncated while it is in use\?/m);
      expect(status).toBe(1);
      expect(place.leftProcesses()).toEqual([]);
    },
  );

  test.each(['SIGINT', 'SIGTERM'] as const)('ends definitely on %s', async (signal) => {
    const run = new CliRun(slow('interrupted.img').args, place.options);
    await run.shows(UNDER_WAY);
    run.child.kill(signal);
    const { status, stderr } = await run.ended;
    expect(stderr).toMatch(/^interrupted: /);
    expect(status).toBe(130);
    expect(place.leftProcesses()).toEqual([]);
  });

  test('leaves neither process nor file when it is killed', async () => {
    const run = new CliRun(
      ['restore', '--no-prefetch', '--latency', '40', '--fault-around', '1'],
      place.options,
    );
    await run.shows(/^[\d ]+ of 12 288 pages: /m);
    run.child.kill('SIGKILL');
    expect((await run.ended).status).toBe('SIGKILL');
    await expect
      .poll(() => [...place.leftProcesses(), ...place.leftFiles()], { timeout: 10_000 })
      .toEqual([]);
  });

  test('an image that grows does no harm', async () => {
    const { image, args } = slow('growing.img');
    const run = new CliRun([...args, '--accessors', '0'], place.options);
    await run.shows(/^backend/m);
    appendFileSync(image, Buffer.alloc(4096, 1));
    const { status, stdout } = await run.ended;
    expect(stdout).toContain('checked 67 108 864 bytes: all right');
    expect(status).toBe(0);
  });
});

describe('restore, by a user without privileges', () => {
  test('falls back to the model, and says what would change that', async (context) => {
    const other = await nobody();
    if ('lacking' in other) return context.skip(other.lacking);
    const { status, stdout } = await cli(['restore', '--json'], other.options);
    const document = JSON.parse(stdout) as Document;
    if (document.backend.name === 'userfaultfd')
      return context.skip('this host lets everybody use userfaultfd');
    expect(document.backend).toMatchObject({ name: 'memory', fallback: { from: 'userfaultfd' } });
    expect(document.backend.fallback!.remedy).toMatch(/vm\.unprivileged_userfaultfd=1|\/dev\/userfaultfd/);
    expect(document.ok).toBe(true);
    expect(status).toBe(0);
  });

  test('is refused the backend that it names', async (context) => {
    const other = await nobody();
    if ('lacking' in other) return context.skip(other.lacking);
    const { status, stderr } = await cli(['restore', '--backend', 'userfaultfd'], other.options);
    if (status === 0) return context.skip('this host lets everybody use userfaultfd');
    expect(stderr).toMatch(/^error NO_PERMISSION: /);
    expect(stderr).toMatch(/^hint: .*(vm\.unprivileged_userfaultfd|\/dev\/userfaultfd)/m);
    expect(status).toBe(1);
  });
});
