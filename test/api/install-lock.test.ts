import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { expect, it } from 'vitest';
import { InstallLock } from '../../src/api/install-lock.js';

const words = (): Int32Array => new Int32Array(new SharedArrayBuffer(4));

const leaving = new URL('./fixtures/leave-lock.mjs', import.meta.url);

it('install lock without a batch in progress: taken at once, and for good', () => {
  const shared = words();
  const lock = new InstallLock(shared, 0);
  lock.enter();
  lock.leave();
  lock.take(0);
  const taken = shared[0];
  lock.leave();
  lock.take(0);
  expect(shared[0]).toBe(taken);
});

it('install lock with a batch in progress: taken when the batch has ended', async () => {
  const shared = words();
  const lock = new InstallLock(shared, 0);
  lock.enter();
  const resolver = new Worker(leaving, { workerData: shared });
  const left = once(resolver, 'message');
  lock.take(Infinity); // blocks until the other thread has left
  await left;
  expect(shared[0]).toBe(2);
});

it('install lock with a batch that does not end: taken after the bound', () => {
  const shared = words();
  const lock = new InstallLock(shared, 0);
  lock.enter();
  lock.take(20);
  expect(shared[0]).toBe(2);
});
