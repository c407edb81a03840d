import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { Rig } from './rig.js';

const script = new URL('./fixtures/accessors.mjs', import.meta.url).pathname;
const SITES = ['kernel-copy', 'vmm-load', 'vmm-store', 'vmm-syscall'];
/** A hang lasts for ever; a loaded machine takes a second a round. */
const LIMIT_MS = 100_000;

test.for(['discard-refetch', 'discard-zero', 'freeze'])(
  'guest-memfd: accesses of VMM threads and system calls during %s: wait, and none fails',
  { timeout: 2 * LIMIT_MS },
  (verb, context) => {
    Rig.open(context)[Symbol.dispose]();
    const { stdout, stderr, status, signal } = spawnSync(process.execPath, [script, verb, '60'], {
      encoding: 'utf8',
      timeout: LIMIT_MS,
      killSignal: 'SIGKILL',
    });
    expect({ status, signal, stderr }).toEqual({ status: 0, signal: null, stderr: '' });
    expect(JSON.parse(stdout)).toEqual(SITES.map((site) => ({ site, times: true, wrong: [] })));
  },
);
