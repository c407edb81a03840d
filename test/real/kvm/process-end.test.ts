import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { Rig } from './rig.js';

const script = new URL('./fixtures/ending.mjs', import.meta.url).pathname;
/** Far more than it takes to start Node, a VM and a pager under emulation; a hang lasts for ever. */
const LIMIT_MS = 60_000;

test.for(['composite', 'guest-memfd'] as const)(
  '%s: the process exits while one of its threads waits for a page: ends at once, with its status',
  { timeout: 2 * LIMIT_MS },
  (flavour, context) => {
    Rig.open(context)[Symbol.dispose]();
    const { status, signal, stderr } = spawnSync(process.execPath, [script, flavour], {
      encoding: 'utf8',
      timeout: LIMIT_MS,
      killSignal: 'SIGKILL',
    });
    expect({ status, signal, stderr }).toEqual({ status: 7, signal: null, stderr: '' });
  },
);
