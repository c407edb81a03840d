import { expect, it } from 'vitest';
import { KeepAlive } from '../../src/api/keep-alive.js';

/** Timers that keep the event loop going. */
const alive = (): number => process.getActiveResourcesInfo().filter((kind) => kind === 'Timeout').length;

it('KeepAlive: the event loop goes on while it is wanted or something is awaited, until it ends', async () => {
  const before = alive();
  const keep = new KeepAlive();
  expect(alive() - before, 'wanted').toBe(1);
  keep.wanted = false;
  expect(alive() - before, 'not wanted').toBe(0);
  let settle!: (value: string) => void;
  let fail!: (error: Error) => void;
  const first = keep.during(new Promise<string>((resolve) => (settle = resolve)));
  const second = keep.during(new Promise<string>((_, reject) => (fail = reject)));
  expect(alive() - before, 'two awaited').toBe(1);
  settle('done');
  expect(await first).toBe('done');
  expect(alive() - before, 'one awaited').toBe(1);
  fail(new Error('no'));
  await expect(second).rejects.toThrow('no');
  expect(alive() - before, 'none awaited').toBe(0);
  keep.wanted = true;
  expect(alive() - before, 'wanted again').toBe(1);
  keep.end();
  expect(alive() - before, 'ended').toBe(0);
});
