import { existsSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { expect, test } from 'vitest';
import { installKickSignal, Kvm, threadId } from '../../src/linux/index.js';

test('a VM is made while signals come', async (context) => {
  if (!existsSync('/dev/kvm')) context.skip('no /dev/kvm here');
  installKickSignal();
  const stop = new Int32Array(new SharedArrayBuffer(4));
  const code = new URL('./fixtures/signals.mjs', import.meta.url);
  const worker = new Worker(code, { workerData: { thread: threadId(), stop } });
  const ended = new Promise((resolve) => worker.once('exit', resolve));
  try {
    await new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
    using kvm = Kvm.open();
    let made = 0;
    for (; made < 200; made++) kvm.createVm().close();
    expect(made).toBe(200);
  } finally {
    Atomics.store(stop, 0, 1);
    Atomics.notify(stop, 0);
    await ended;
  }
});
