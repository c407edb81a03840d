import { once } from 'node:events';
import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { expect, test } from 'vitest';
import { skipWithoutUserfaultfd } from '../userfaultfd/scene.js';

skipWithoutUserfaultfd();

const script = new URL('./fixtures/paused.mjs', import.meta.url).pathname;
const TIMEOUT_MS = 2000;

test.each(['asynchronous', 'synchronous'])(
  'a process that is stopped for longer than a time-out while its %s source reads goes on afterwards',
  async (kind) => {
    const child = spawn(process.execPath, [script, kind, String(TIMEOUT_MS)], { timeout: 30_000 });
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    const line = async (): Promise<unknown> => (await lines.next()).value as unknown;
    const ended = once(child, 'close');
    expect(await line()).toBe('asked');
    child.kill('SIGSTOP');
    const stopped = performance.now();
    while (performance.now() - stopped < 1.5 * TIMEOUT_MS)
      await new Promise((resolve) => setImmediate(resolve));
    child.kill('SIGCONT');
    expect(await line()).toBe('read 3');
    expect(await ended).toEqual([0, null]);
  },
);
