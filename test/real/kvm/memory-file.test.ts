import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, test, type TestContext } from 'vitest';
import { ERRNO, hugePagePool } from '../../../src/linux/index.js';
import { Rig } from './rig.js';

const script = new URL('./fixtures/memory-file.mjs', import.meta.url).pathname;
/** Far more than it takes to start Node, a VM and a pager under emulation; a hang lasts for ever. */
const LIMIT_MS = 60_000;
const PLAIN = ['kvm-exit', 'composite', 'userfaultfd copy', 'userfaultfd continue'] as const;
const HUGE = ['kvm-exit hugetlb', 'userfaultfd continue hugetlb'] as const;

/**
 * What a VMM of its own says; in a mount namespace with a tmpfs of 1 MiB, or a test skipped where there
 * cannot be one.
 */
function outcomeOf(context: TestContext, flavour: string, what: string): unknown {
  Rig.open(context)[Symbol.dispose]();
  const folder = mkdtempSync(join(tmpdir(), 'demand-paging-file-'));
  try {
    const command = 'mount -t tmpfs -o size=1m none "$3" && exec "$0" "$4" "$1" "$2" "$3"';
    const { stdout, stderr, status, signal, error } = spawnSync(
      'unshare',
      ['--mount', 'sh', '-c', command, process.execPath, flavour, what, folder, script],
      { encoding: 'utf8', timeout: LIMIT_MS, killSignal: 'SIGKILL' },
    );
    if (error || /unshare|mount:/.test(stderr))
      context.skip(`no mount namespace for a small tmpfs: ${error?.message ?? stderr.trim()}`);
    return stdout === '' ? { status, signal, stderr } : (JSON.parse(stdout) as unknown);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const matching = (text: RegExp): string => expect.stringMatching(text) as string;

test.for([...PLAIN, ...HUGE])(
  '%s: a memory file ends before its region: refused',
  { timeout: 2 * LIMIT_MS },
  (flavour, context) => {
    if (flavour.includes('hugetlb') && !hugePagePool()) context.skip('this kernel has no huge pages');
    expect(outcomeOf(context, flavour, 'short')).toEqual({
      refused: { code: 'BAD_RANGE', message: matching(/ends beyond the file's \d+ bytes/) },
    });
  },
);

test.for(HUGE)(
  '%s: the huge page pool is empty: stops the pager, not the process',
  { timeout: 2 * LIMIT_MS },
  (flavour, context) => {
    const pool = hugePagePool();
    if (!pool) return context.skip('this kernel has no huge pages');
    if (pool.free > 0) context.skip('the pool has huge pages to give');
    expect(outcomeOf(context, flavour, 'full')).toEqual({
      stopped: { code: 'NO_HUGE_PAGES', errno: ERRNO.ENOMEM, message: matching(/nr_hugepages/) },
    });
  },
);

test.for(PLAIN)(
  '%s: a full tmpfs: stops the pager, not the process',
  { timeout: 2 * LIMIT_MS },
  (flavour, context) => {
    expect(outcomeOf(context, flavour, 'full')).toEqual({
      stopped: { code: 'KERNEL', errno: expect.any(Number) as number, message: matching(/memory left/) },
    });
  },
);

test.for(['kvm-exit', 'composite', 'userfaultfd copy'])(
  '%s: the memory file is truncated meanwhile: stops the pager, not the process',
  { timeout: 2 * LIMIT_MS },
  (flavour, context) => {
    expect(outcomeOf(context, flavour, 'truncated')).toEqual({
      read: 'STOPPED',
      stopped: { code: 'KERNEL', errno: ERRNO.EFAULT, message: matching(/truncated/) },
    });
  },
);
