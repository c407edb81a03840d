import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import { once } from 'node:events';
import { describe, expect, test } from 'vitest';
import { EventFd, EventLoopReader, openProcess, raw } from '../../src/linux/index.js';

const descriptors = (): number => readdirSync('/proc/self/fd').length;

/** Calls of a reader's callback, one after the other. */
function calls(): { readonly read: (bytes: number) => void; next(): Promise<number> } {
  const come: number[] = [];
  let wake = (): void => {};
  return {
    read(bytes) {
      come.push(bytes);
      wake();
    },
    async next() {
      while (come.length === 0) await new Promise<void>((resolve) => (wake = resolve));
      return come.shift()!;
    },
  };
}

describe('a descriptor that the event loop reads', () => {
  test('an eventfd: its count comes once for each resume, before or after it was rung', async () => {
    using event = EventFd.create();
    const into = new BigUint64Array(1);
    const { read, next } = calls();
    const reader = new EventLoopReader(event.fd, new Uint8Array(into.buffer), read);
    event.ring();
    event.ring();
    reader.resume();
    expect([await next(), into[0]]).toEqual([8, 2n]);
    event.ring();
    await new Promise((resolve) => setImmediate(resolve));
    expect(event.clear(), 'not read before it is resumed').toBe(1);
    reader.resume();
    event.ring();
    expect([await next(), into[0]]).toEqual([8, 1n]);
    reader.close();
  });

  test('a pidfd: nothing can be read, and the end of the process is told', async () => {
    const child = spawn('sleep', ['100']);
    const fd = openProcess(child.pid!);
    const { read, next } = calls();
    const reader = new EventLoopReader(fd, new Uint8Array(8), read);
    reader.resume();
    child.kill('SIGKILL');
    expect(await next()).toBe(0);
    reader.close();
    raw.close(fd);
  });

  test('is closed with its reader at once, and the file is not', () => {
    using event = EventFd.create();
    const before = descriptors();
    const reader = new EventLoopReader(event.fd, new Uint8Array(8), () => {});
    reader.resume();
    expect(descriptors()).toBe(before + 1);
    reader.close();
    reader.close();
    expect(descriptors()).toBe(before);
    expect(event.ring()).toBe(0);
  });

  test('that is none: KERNEL with EBADF, and nothing is left', () => {
    const before = descriptors();
    expect(() => new EventLoopReader(999_999, new Uint8Array(8), () => {})).toThrow(
      expect.objectContaining({ code: 'KERNEL', errno: 9, syscall: 'dup3' }),
    );
    expect(descriptors()).toBe(before);
  });

  test('keeps no isolate alive', async () => {
    using event = EventFd.create();
    const before = descriptors();
    const worker = new Worker(new URL('./fixtures/event-loop-reader.mjs', import.meta.url), {
      workerData: event.fd,
    });
    expect(await once(worker, 'exit')).toEqual([0]);
    expect(descriptors(), 'its duplicate is gone').toBeLessThanOrEqual(before);
  });
});
