import { expect, test } from 'vitest';
import { RunLength } from '../../src/kvm/run-length.js';

test('run length: sequential faults double it up to a bound, a jump halves it', () => {
  const run = new RunLength();
  const lengths: number[] = [];
  let page = 1000;
  for (let time = 0; time < 8; time++) {
    run.faulted(0, page);
    lengths.push(run.length);
    run.mapped(0, page + run.length);
    page += run.length;
  }
  expect(lengths).toEqual([16, 32, 64, 128, 256, 512, 512, 512]);
  for (const jump of [50, 9000, 77, 100_000, 3, 60_000]) {
    run.faulted(0, jump);
    run.mapped(0, jump + 1);
  }
  expect(run.length).toBe(16);
});

test('run length: interleaved sequential vCPUs: each counts as sequential', () => {
  const run = new RunLength();
  for (let page = 0; page < 64; page++) {
    run.faulted(page % 2, 1000 * (page % 2) + page);
    run.mapped(page % 2, 1000 * (page % 2) + page + 1);
  }
  expect(run.length).toBe(512);
});
