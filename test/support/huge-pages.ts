import { closeSync, openSync } from 'node:fs';
import koffi from 'koffi';
import { type TestContext } from 'vitest';
import { type HugePagePool, reserveHugePages } from '../../src/linux/index.js';

/** What the runs on one host share: the size of the pool. Nothing is left behind by locking it. */
const SHARED = '/proc/sys/vm/nr_hugepages';
const [LOCK_EX, LOCK_NB] = [2, 4];

/**
 * Keeps the host's huge pages to this process until it is disposed of. The pool is the whole machine's, so
 * while one run has set its size another must not: it waits here, and says so. Blocks. Throws where there is
 * no pool.
 */
export function lockHugePages(): Disposable {
  const fd = openSync(SHARED, 'r');
  const flock = koffi.load(null).func('flock', 'int', ['int', 'int']);
  if (flock(fd, LOCK_EX | LOCK_NB) !== 0) {
    process.stderr.write(
      `another run on this host has its huge pages (a lock on ${SHARED}): waiting for its end\n`,
    );
    flock(fd, LOCK_EX);
  }
  return { [Symbol.dispose]: () => closeSync(fd) };
}

/**
 * Reserves huge pages of the default size, which no other run takes or gives back meanwhile. Throws as
 * reserveHugePages.
 */
export function reserveLocked(count: number): Disposable & { readonly pool: HugePagePool } {
  const lock = lockHugePages();
  try {
    const reserved = reserveHugePages(count);
    return {
      pool: reserved.pool,
      [Symbol.dispose]() {
        reserved[Symbol.dispose]();
        lock[Symbol.dispose]();
      },
    };
  } catch (error) {
    lock[Symbol.dispose]();
    throw error;
  }
}

/**
 * As {@link reserveLocked}, or a test skipped with the reason for which there are none. `pageSize`: what they
 * must be.
 */
export function needHugePages(
  context: TestContext,
  count: number,
  pageSize?: number,
): Disposable & { readonly pool: HugePagePool } {
  let reserved: ReturnType<typeof reserveLocked>;
  try {
    reserved = reserveLocked(count);
  } catch (error) {
    return context.skip(`no huge pages: ${String(error)}`);
  }
  if (pageSize === undefined || reserved.pool.pageSize === pageSize) return reserved;
  reserved[Symbol.dispose]();
  return context.skip(`huge pages of ${reserved.pool.pageSize} bytes here`);
}
