import { readFileSync, writeFileSync } from 'node:fs';
import { DemandPagingError } from '../api/error.js';
import { systemError } from './failure.js';
import { defaultHugePageSize, memoryInfo } from './page-size.js';

const SYSCTL = '/proc/sys/vm/nr_hugepages';
const TRANSPARENT = '/sys/kernel/mm/transparent_hugepage/enabled';

/** The size of transparent huge pages on most hosts. */
export const TRANSPARENT_HUGE_BYTES = 0x20_0000;

/** `always`, `madvise` or `never`; undefined where the kernel has none. Source: transhuge.rst. */
export function transparentHugePages(): string | undefined {
  try {
    return /\[(\w+)\]/.exec(readFileSync(TRANSPARENT, 'utf8'))?.[1];
  } catch {
    return undefined;
  }
}

export interface HugePagePool {
  readonly total: number;
  readonly free: number;
  /** Bytes. */
  readonly pageSize: number;
}

/** The pool of default-sized huge pages, or undefined without hugetlb. Source: hugetlbpage.rst. */
export function hugePagePool(): HugePagePool | undefined {
  const size = defaultHugePageSize();
  if (size === undefined) return undefined;
  const text = memoryInfo();
  const field = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0);
  return { total: field('HugePages_Total'), free: field('HugePages_Free'), pageSize: size };
}

function setPool(pages: number): void {
  try {
    writeFileSync(SYSCTL, String(pages));
  } catch (cause) {
    const errno = -((cause as NodeJS.ErrnoException).errno ?? 0);
    throw systemError('write', errno, `cannot set ${SYSCTL} to ${pages}`, { subject: SYSCTL });
  }
}

/**
 * Makes sure that `count` default-sized huge pages are free, growing the system's pool; the disposer
 * puts the old size back. The pool is the whole machine's: meant for tests and for a VMM that has
 * the machine to itself. Two reservations must be disposed of in reverse order.
 * Blocks: while the kernel compacts memory. Errors: NO_PERMISSION (root only); NO_HUGE_PAGES when
 * memory is too fragmented; NOT_SUPPORTED. Requires: hugetlb. Source: hugetlbpage.rst.
 */
export function reserveHugePages(count: number): Disposable & { readonly pool: HugePagePool } {
  const before = hugePagePool();
  if (!before) throw new DemandPagingError('NOT_SUPPORTED', 'this kernel has no hugetlb pages');
  const restore = (): void => setPool(before.total);
  if (before.free < count) setPool(before.total + count - before.free);
  const pool = hugePagePool()!;
  if (pool.free < count) {
    restore();
    throw new DemandPagingError(
      'NO_HUGE_PAGES',
      `only ${pool.free} of ${count} huge pages could be reserved`,
      {
        hint: 'Reserve them at boot (hugepages=N) or free memory; compaction did not find more',
      },
    );
  }
  let disposed = false;
  return {
    pool,
    [Symbol.dispose]() {
      if (disposed) return;
      disposed = true;
      restore();
    },
  };
}
