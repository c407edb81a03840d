import { expect, test } from 'vitest';
import { PROPERTIES } from 'demand-paging/conformance';
import { userfaultfdSupport } from 'demand-paging/linux';
import { cli } from './cli.js';

interface Document {
  readonly held: number;
  readonly failed: number;
  readonly skipped: number;
  readonly properties: readonly { name: string; outcome: string; runs?: number; reason?: string }[];
}

test('the model holds every property that it does not declare away', async () => {
  const { status, stdout } = await cli(['conformance', '--backend', 'memory', '--runs', '20', '--json']);
  const { held, failed, skipped, properties } = JSON.parse(stdout) as Document;
  expect(properties.filter(({ outcome }) => outcome === 'failed')).toEqual([]);
  expect(held + failed + skipped).toBe(PROPERTIES.length);
  for (const { outcome, runs, reason } of properties) expect(outcome === 'held' ? runs : reason).toBeTruthy();
  expect(properties.find(({ name }) => name === 'install-once')).toMatchObject({ outcome: 'held', runs: 20 });
  expect(status).toBe(0);
});

test('userfaultfd holds them on the real kernel, with real threads', async (context) => {
  try {
    userfaultfdSupport();
  } catch (error) {
    return context.skip(String(error));
  }
  const { status, stdout } = await cli(['conformance', '--backend', 'userfaultfd', '--runs', '2', '--json']);
  const { held, failed, skipped, properties } = JSON.parse(stdout) as Document;
  expect(properties.filter(({ outcome }) => outcome === 'failed')).toEqual([]);
  expect(held + failed + skipped).toBe(PROPERTIES.length);
  expect(properties.find(({ name }) => name === 'no-zero-leak')).toMatchObject({ outcome: 'held', runs: 2 });
  expect(status).toBe(0);
});

test('--only checks what is named, in text', async () => {
  const { stdout } = await cli([
    'conformance',
    '--runs',
    '5',
    '--only',
    'no-lost-wake',
    'kernel-access-errors-then-retries',
  ]);
  expect(stdout).toMatch(/^holds {4}no-lost-wake, 5 runs\nskipped {2}kernel-access-errors-then-retries: /);
  expect(stdout).toMatch(/memory: 1 hold, 0 fail, 1 skipped\n$/);
});
