import { execFileSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { skipWithoutUserfaultfd } from '../userfaultfd/scene.js';

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
