import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { DEADLINE_MS, skipWithoutUserfaultfd } from '../userfaultfd/scene.js';
import { contents } from './guest.js';

skipWithoutUserfaultfd();

interface Held {
  readonly threads: number;
  readonly descriptors: number;
  readonly handles: string;
}

/** What fixtures/many.mjs saw. */
function many(count: number): Record<'before' | 'meanwhile' | 'closed', Held> {
  const program = new URL('./fixtures/many.mjs', import.meta.url).pathname;
  return JSON.parse(
    execFileSync(process.execPath, [program, String(count)], { encoding: 'utf8' }),
  ) as ReturnType<typeof many>;
}

describe('close', () => {
  test('of one pager: resolved, no timer and no port is left in the event loop', () => {
    expect(many(1).closed.handles).toBe('');
  });

  test('of 100 pagers at once: resolved, every thread and descriptor is gone', () => {
    const { before, closed } = many(100);
    expect(closed).toEqual(before);
  });
});

test('an asynchronous source: an access is served while libuv’s pool has no thread to spare', () => {
  const folder = mkdtempSync(join(tmpdir(), 'pool-'));
  try {
    const fifo = join(folder, 'fifo');
    execFileSync('mkfifo', [fifo]);
    const program = new URL('./fixtures/pool-held.mjs', import.meta.url).pathname;
    const env = { ...process.env, UV_THREADPOOL_SIZE: '1' };
    const said = execFileSync(process.execPath, [program, fifo], {
      encoding: 'utf8',
      env,
      timeout: DEADLINE_MS,
    });
    const seen = said
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line) as unknown);
    expect(seen).toEqual([3, 9, 1].map((page) => ({ ok: true, bytes: { 0: contents(page) } })));
  } finally {
    rmSync(folder, { recursive: true });
  }
});
