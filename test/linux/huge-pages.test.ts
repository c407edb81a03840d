import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { hugePagePool } from '../../src/linux/index.js';
import { lockHugePages, needHugePages } from '../support/huge-pages.js';

/** Whether another process gets the lock at once. */
const othersGetIt = (): boolean =>
  spawnSync('flock', ['--nonblock', '/proc/sys/vm/nr_hugepages', 'true']).status === 0;

test('of several runs on a host one at a time has the huge pages', (context) => {
  const found = spawnSync('flock', ['--version']);
  if (found.error) return context.skip(`no flock: ${found.error.message}`);
  {
    using _pool = needHugePages(context, 1);
    expect(othersGetIt()).toBe(false);
    expect(hugePagePool()!.free).toBeGreaterThanOrEqual(1);
  }
  expect(othersGetIt()).toBe(true);
  using _again = lockHugePages();
  expect(othersGetIt()).toBe(false);
});
