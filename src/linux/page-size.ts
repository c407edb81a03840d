import { readdirSync, readFileSync } from 'node:fs';
import { ERRNO, systemError } from './failure.js';
import { libc } from './ffi.js';
import { SC_PAGESIZE } from './mman.js';

let basePageSize: number | undefined;

/** The host's page size in bytes: 4096, 16384 or 65536. Source: sysconf(3). Errors: NATIVE_UNAVAILABLE. */
export function pageSize(): number {
  return (basePageSize ??= libc().sysconf(SC_PAGESIZE));
}

/** The text of /proc/meminfo. Errors: NO_DEVICE where there is no /proc; KERNEL, NO_PERMISSION. */
export function memoryInfo(): string {
  try {
    return readFileSync('/proc/meminfo', 'utf8');
  } catch (cause) {
    const { errno = 0, syscall = 'open' } = cause as NodeJS.ErrnoException;
    throw systemError(syscall, -errno, "nothing tells of this host's huge pages without /proc/meminfo", {
      codes: { [ERRNO.ENOENT]: 'NO_DEVICE' },
      hint: 'Mount /proc here (mount -t proc proc /proc), or show it in the container',
    });
  }
}

/**
 * The default huge page size in bytes, or undefined where the kernel has no hugetlb.
 * Errors: NO_DEVICE without /proc. Source: proc_meminfo(5).
 */
export function defaultHugePageSize(): number | undefined {
  const line = /^Hugepagesize:\s+(\d+) kB$/m.exec(memoryInfo());
  return line ? Number(line[1]) * 1024 : undefined;
}

/** Every huge page size the kernel offers, in bytes, ascending. Source: hugetlbpage.rst. */
export function hugePageSizes(): number[] {
  try {
    return readdirSync('/sys/kernel/mm/hugepages')
      .map((name) => /^hugepages-(\d+)kB$/.exec(name)?.[1])
      .filter((size) => size !== undefined)
      .map((size) => Number(size) * 1024)
      .sort((a, b) => a - b);
  } catch {
    return []; // no sysfs, or a kernel without hugetlb
  }
}
