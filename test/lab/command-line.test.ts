import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { main } from '../../lab/lab.js';
import { STATUS } from '../../lab/machine/failure.js';
import { ROOT } from '../../scripts/entries.mjs';

let said: string;
beforeEach(() => {
  said = '';
  vi.spyOn(process.stderr, 'write').mockImplementation((text) => {
    said += String(text);
    return true;
  });
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

test.each([
  [['arm64', '--only', 'nothing-like-it'], /there is no suite nothing-like-it: .*smoke/],
  [['riscv'], /there is no lab for riscv: arm64, x86/],
  [['arm64', '--kernel', 'ancient'], /Allowed choices are newest, stable, oldstable/],
  [['arm64', '--timeout', '0'], /a whole number from 1/],
  [['arm64', '--env', 'nonsense'], /--env takes NAME=value, not nonsense/],
  [[], /missing required argument 'architecture'/],
])('%j is refused: nothing is fetched, nothing booted', async (args, message) => {
  // Nothing can be found, so that whatever goes on after all ends with another status.
  vi.stubEnv('PATH', '/nowhere');
  expect(await main(ROOT, args)).toBe(STATUS.usage);
  expect(said).toMatch(message);
});

test('without its programs the lab names the packages, with a status of its own', async () => {
  vi.stubEnv('PATH', '/nowhere');
  expect(await main(ROOT, ['arm64', '--only', 'smoke'])).toBe(STATUS.unavailable);
  expect(said).toContain('apt-get install qemu-system-arm');
});
