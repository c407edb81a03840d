import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';
import { skipWithoutUserfaultfd } from '../userfaultfd/scene.js';

skipWithoutUserfaultfd();

const script = new URL('./fixtures/in-worker.mjs', import.meta.url).pathname;

/** Far more than it takes to start Node and to end it; far less than a hang. */
const LIMIT_MS = 20_000;

test.each([
  ['main exit', { status: 7, stdout: '' }],
  ['main exit, a load waits', { status: 7, stdout: '' }],
  ['main killed', { signal: 'SIGTERM', stdout: '' }],
  ['terminate', { status: 7, stdout: 'read -14\n' }],
  ['error', { status: 7, stdout: 'read -14\n' }],
  ['exit', { status: 7, stdout: 'read -14\n' }],
  ['empty', { status: 7, stdout: 'read -14\n' }],
])('a pager of a worker thread, and an access that waits, when it ends by: %s', (way, how) => {
  const { status, signal, stdout } = spawnSync(process.execPath, [script, way], {
    encoding: 'utf8',
    timeout: LIMIT_MS,
    killSignal: 'SIGKILL',
  });
  expect({ status, signal, stdout }).toEqual({ status: null, signal: null, ...how });
});
