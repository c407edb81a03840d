import { closeSync, openSync, read, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import { startAccessor } from '../../../src/accessors/index.js';
import { fileOffset, gpa, openPager, type Pager, type PagerOptions } from '../../../src/api/index.js';
import { userfaultfd, type UserfaultfdBackendOptions } from '../../../src/backends/userfaultfd/index.js';
import { ERRNO, hugePagePool, libc } from '../../../src/linux/index.js';
import { zero } from '../../../src/sources/index.js';
import { HUGE, PAGE, skipWithoutUserfaultfd } from '../userfaultfd/scene.js';

skipWithoutUserfaultfd();

const never = { module: new URL('./fixtures/source.mjs', import.meta.url).href, export: 'never' };

/** A pager whose source never answers. */
const open = (
  memory: 'anonymous' | 'shmem' | 'hugetlb' = 'anonymous',
  backend: UserfaultfdBackendOptions = {},
  more: Partial<PagerOptions> = {},
): Promise<Pager> => {
  const pageSize = memory === 'hugetlb' ? HUGE : PAGE;
  const length = 4 * pageSize;
  return openPager({
    backend: userfaultfd(backend),
    regions: [{ gpa: gpa(0), length: BigInt(length), sourceOffset: fileOffset(0), memory, pageSize }],
    source: { ...never, options: { length } },
    policy: { faultAroundPages: 1 },
    ...more,
  });
};

async function faults(pager: Pager, count: number): Promise<void> {
  while (pager.statistics().fetches < count) await new Promise((resolve) => setImmediate(resolve));
}

describe('close, of memory that was mapped here', () => {
  test.for(['anonymous', 'shmem', 'hugetlb'] as const)(
    'accesses that wait in %s memory fail, and no page was poisoned for it',
    async (memory, context) => {
      if (memory === 'hugetlb' && (hugePagePool()?.free ?? 0) < 4) context.skip('no free huge pages');
      const pager = await open(memory);
      const sites = ['vmm-syscall', 'kernel-copy', 'external-vm-readv'] as const;
      const accessors = await Promise.all(sites.map((site) => startAccessor(site, pager.layout)));
      const results = accessors.map((accessor, page) => accessor.access({ page, length: 8 }));
      await faults(pager, sites.length);
      await pager.close();
      expect(pager.statistics().poisonedPages).toBe(0);
      expect(await Promise.all(results)).toEqual(sites.map(() => ({ ok: false, errno: ERRNO.EFAULT })));
      await Promise.all(accessors.map((accessor) => accessor.stop()));
    },
  );

  test('every thread of the pool waits in a system call for it: they fail, and closing does not wait for them', async () => {
    const pager = await open();
    const zeros = openSync('/dev/zero', 'r');
    const into = libc().view(Number(pager.layout.hvaOf(0)), 4 * PAGE);
    const reads = Array.from(
      { length: 8 },
      () =>
        new Promise((resolve) => {
          read(zeros, new Uint8Array(into, PAGE, 8), 0, 8, null, (error) => resolve(error?.code));
        }),
    );
    await faults(pager, 1);
    await pager.close();
    // Those that had no thread before find no memory.
    expect(await Promise.all(reads)).toEqual(reads.map(() => 'EFAULT'));
    closeSync(zeros);
  });

  test.each([
    ['by several userfaultfds', { shards: 2 }],
    ['whose unmapping nothing is told of', { events: [] }],
  ] as const)('%s: it is gone, and so is the file that took its place', async (_, backend) => {
    const pager = await open('anonymous', backend);
    await pager.close();
    expect(readFileSync('/proc/self/maps', 'utf8')).not.toContain('demand-paging: gone');
  });

  test('of 256 GiB that are missing takes no page table for them', async () => {
    const length = 2 ** 38;
    const pager = await openPager({
      backend: userfaultfd(),
      regions: [
        {
          gpa: gpa(0),
          length: BigInt(length),
          sourceOffset: fileOffset(0),
          memory: 'anonymous',
          pageSize: PAGE,
        },
      ],
      source: zero(length),
    });
    const { poisonedPages } = pager.statistics();
    await pager.close();
    expect(pager.statistics().poisonedPages).toBe(poisonedPages);
  });
});
