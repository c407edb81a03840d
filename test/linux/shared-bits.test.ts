import { Worker } from 'node:worker_threads';
import { once } from 'node:events';
import { expect, test } from 'vitest';
import { SharedBits } from '../../src/linux/index.js';

test('bits are set and cleared where they are, over word boundaries', () => {
  const bits = SharedBits.create(160);
  bits.set(3, 100);
  const all = (): number[] =>
    Array.from({ length: 160 }, (_, bit) => bit).filter(
      (bit) => (bits.words()[bit >>> 5]! >>> (bit & 31)) & 1,
    );
  expect(all()).toEqual(Array.from({ length: 100 }, (_, bit) => bit + 3));
  bits.clear(30, 40);
  expect(all()).toEqual(
    [...Array(27).keys()].map((bit) => bit + 3).concat([...Array(33).keys()].map((bit) => bit + 70)),
  );
  bits.set(0, 160);
  expect(all()).toHaveLength(160);
  bits.free();
});

test('threads that change bits of one word lose none', async () => {
  const bits = SharedBits.create(64);
  const workers = [0, 1, 13, 31].map(
    (bit) =>
      new Worker(new URL('./fixtures/bits.mjs', import.meta.url), {
        workerData: { address: bits.address, bit },
      }),
  );
  await Promise.all(workers.map((worker) => once(worker, 'exit')));
  expect(bits.words()[0]! >>> 0).toBe((1 | 2 | (1 << 13) | (1 << 31)) >>> 0);
  bits.free();
});
