import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { afterEach, expect, test } from 'vitest';
import { ExitBoard } from '../../src/kvm/exit-board.js';
import { openVcpuGate, type VcpuGateToken } from '../../src/kvm/gate.js';
import { GatePause } from '../../src/kvm/pause.js';
import { EventFd, threadId, threadLives } from '../../src/linux/index.js';

const undo: (() => void)[] = [];
afterEach(() => {
  for (const step of undo.splice(0).reverse()) step();
});

function boardWithGate(): { board: ExitBoard; token: VcpuGateToken } {
  const board = ExitBoard.create(8, 2);
  const doorbell = EventFd.create();
  undo.push(() => doorbell.close());
  const gate = { board: board.token, regions: [], doorbell: doorbell.fd, vcpu: 0, exitFlag: 0, mmio: false };
  return { board, token: gate };
}

/** A thread that does something with the gate that it is given; words: it is there, it is through, go. */
function thread(token: VcpuGateToken, body: string): { worker: Worker; words: Int32Array } {
  const words = new Int32Array(new SharedArrayBuffer(16));
  const code = `
    const { workerData: { token, words } } = require('node:worker_threads');
    const say = (word) => { Atomics.store(words, word, 1); Atomics.notify(words, word); };
    void import('demand-paging/kvm').then(({ openVcpuGate }) => { ${body} });`;
  const worker = new Worker(code, { eval: true, workerData: { token, words } });
  undo.push(() => void worker.terminate());
  return { worker, words };
}

test('a vCPU cannot leave, and close its descriptor, while the slot thread uses it', async () => {
  const { board, token } = boardWithGate();
  const { worker, words } = thread(
    token,
    `const gate = openVcpuGate(token, 1); say(0); Atomics.wait(words, 2, 0); gate.close(); say(1);`,
  );
  Atomics.wait(words, 0, 0, 10_000);
  let left: string | undefined;
  const seat = board.withSeat(0, () => {
    Atomics.store(words, 2, 1);
    Atomics.notify(words, 2);
    left = Atomics.wait(words, 1, 0, 100);
  });
  expect([seat?.descriptor, left]).toEqual([1, 'timed-out']);
  await once(worker, 'exit');
  expect(Atomics.load(words, 1)).toBe(1);
  expect(board.withSeat(0, () => {})).toBeUndefined();
});

test('slots change while a thread without a vCPU is inside only once it is out', () => {
  const { board, token } = boardWithGate();
  const { words } = thread(
    token,
    `const gate = openVcpuGate(token);
     gate.during(() => { say(0); Atomics.wait(words, 2, 0, 200); say(1); });
     Atomics.wait(words, 3, 0);`,
  );
  Atomics.wait(words, 0, 0, 10_000);
  const pause = new GatePause(board, 4096);
  undo.push(() => pause.close());
  expect(pause.quiesce(() => Atomics.load(words, 1))).toBe(1);
  Atomics.store(words, 3, 1);
  Atomics.notify(words, 3);
});

test('a thread that ended inside its gate is given up, and its seat is free', async () => {
  const { board, token } = boardWithGate();
  const { worker } = thread(token, `openVcpuGate(token).enter();`);
  await once(worker, 'exit');
  const seat = board.withSeat(0, () => {})!;
  while (threadLives(seat.thread)) await new Promise((resolve) => setImmediate(resolve));
  const pause = new GatePause(board, 4096);
  undo.push(() => pause.close());
  pause.quiesce(() => {});
  const gate = openVcpuGate(token);
  gate.close();
});

test('a seat taken by another since is not given up for the one before', () => {
  const { board } = boardWithGate();
  expect(board.sit(0, undefined, 1)).toBe(true);
  const before = board.withSeat(0, () => {})!;
  board.leaveSeat(0);
  expect(board.sit(0, undefined, threadId())).toBe(true);
  board.abandonSeat(0, before);
  expect(board.withSeat(0, () => {})?.thread).toBe(threadId());
});
