import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { afterEach, expect, test } from 'vitest';
import { SharedVcpuState } from '../../src/kvm/shared-vcpu-state.js';
import { openVcpuExitHandler, type VcpuExitHandlerToken } from '../../src/kvm/exit-handler.js';
import { VcpuPause } from '../../src/kvm/pause.js';
import { EventFd, threadId, threadLives } from '../../src/linux/index.js';

const undo: (() => void)[] = [];
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step();
});

function sharedWithHandler(): { shared: SharedVcpuState; token: VcpuExitHandlerToken } {
  const shared = SharedVcpuState.create(8, 2);
  const doorbell = EventFd.create();
  undo.push(() => doorbell.close());
  const token = {
    shared: shared.token,
    regions: [],
    doorbell: doorbell.fd,
    vcpu: 0,
    exitFlag: 0,
    mmio: false,
  };
  return { shared, token };
}

/**
 * A thread that uses an exit handler. Words: the thread is ready, it is done, and the test's signals to it.
 */
function thread(token: VcpuExitHandlerToken, body: string): { worker: Worker; words: Int32Array } {
  const words = new Int32Array(new SharedArrayBuffer(16));
  const code = `
    const { workerData: { token, words } } = require('node:worker_threads');
    const say = (word) => { Atomics.store(words, word, 1); Atomics.notify(words, word); };
    void import('demand-paging/kvm').then(({ openVcpuExitHandler }) => { ${body} });`;
  const worker = new Worker(code, { eval: true, workerData: { token, words } });
  undo.push(() => void worker.terminate());
  return { worker, words };
}

test('unregister: while the slot thread uses the descriptor: waits until it is unused', async () => {
  const { shared, token } = sharedWithHandler();
  const { worker, words } = thread(
    token,
    `const handler = openVcpuExitHandler(token, 1); say(0); Atomics.wait(words, 2, 0); handler.close(); say(1);`,
  );
  Atomics.wait(words, 0, 0, 10_000);
  let left: string | undefined;
  const registration = shared.withRegistration(0, () => {
    Atomics.store(words, 2, 1);
    Atomics.notify(words, 2);
    left = Atomics.wait(words, 1, 0, 100);
  });
  expect([registration?.descriptor, left]).toEqual([1, 'timed-out']);
  await once(worker, 'exit');
  expect(Atomics.load(words, 1)).toBe(1);
  expect(shared.withRegistration(0, () => {})).toBeUndefined();
});

test('pause: a thread without a vCPU is inside: waits until it is outside', () => {
  const { shared, token } = sharedWithHandler();
  const { words } = thread(
    token,
    `const handler = openVcpuExitHandler(token);
     handler.during(() => { say(0); Atomics.wait(words, 2, 0, 200); say(1); });
     Atomics.wait(words, 3, 0);`,
  );
  Atomics.wait(words, 0, 0, 10_000);
  const pause = new VcpuPause(shared, 4096);
  undo.push(() => pause.close());
  expect(pause.quiesce(() => Atomics.load(words, 1))).toBe(1);
  Atomics.store(words, 3, 1);
  Atomics.notify(words, 3);
});

test('pause: a thread has ended inside: its registration is abandoned and its index is free', async () => {
  const { shared, token } = sharedWithHandler();
  const { worker } = thread(token, `openVcpuExitHandler(token).enter();`);
  await once(worker, 'exit');
  const registration = shared.withRegistration(0, () => {})!;
  while (threadLives(registration.thread)) await new Promise((resolve) => setImmediate(resolve));
  const pause = new VcpuPause(shared, 4096);
  undo.push(() => pause.close());
  pause.quiesce(() => {});
  const handler = openVcpuExitHandler(token);
  handler.close();
});

test('abandon: an earlier generation: the later registration stays', () => {
  const { shared } = sharedWithHandler();
  expect(shared.register(0, undefined, 1)).toBe(true);
  const before = shared.withRegistration(0, () => {})!;
  shared.unregister(0);
  expect(shared.register(0, undefined, threadId())).toBe(true);
  shared.abandon(0, before);
  expect(shared.withRegistration(0, () => {})?.thread).toBe(threadId());
});
