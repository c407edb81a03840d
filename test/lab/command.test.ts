import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { command, findProgram } from '../../lab/machine/command.js';
import { LabFailure } from '../../lab/machine/failure.js';

let folder: string;
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'lab-test-'))));
afterEach(() => rmSync(folder, { recursive: true, force: true }));

const { signal } = new AbortController();
const shell = (script: string, options = {}): Promise<string> =>
  command('sh', ['-c', script], { signal, cwd: folder, ...options });

const isAlive = (pid: number): boolean => existsSync(`/proc/${pid}`);
const pidIn = (file: string): number => Number(readFileSync(join(folder, file), 'utf8'));

test('what a program prints is its result', async () => {
  expect(await shell('echo yes; echo aside >&2')).toBe('yes\n');
});

test('a program that fails is quoted: what it calls an error, else its last lines', async () => {
  await expect(
    shell('echo before >&2; echo "E: no such package" >&2; echo after >&2; exit 100'),
  ).rejects.toThrow(/^sh -c failed: E: no such package$/);
  await expect(shell('echo one; echo two; exit 1')).rejects.toThrow('sh -c failed: one; two');
  await expect(shell('exit 1')).rejects.toThrow('it said nothing');
});

test('a program that is not there', async () => {
  const missing = command('no-such-program-here', [], { signal });
  await expect(missing).rejects.toThrow('no-such-program-here did not start');
  await expect(missing).rejects.toBeInstanceOf(LabFailure);
  expect(findProgram('no-such-program-here')).toBeUndefined();
});

test('a program that takes too long is ended', async () => {
  const slow = shell('echo $$ >pid; exec sleep 600', { timeout_ms: 500 });
  await expect(slow).rejects.toThrow('sh was not done after 0.5 s');
  expect(isAlive(pidIn('pid'))).toBe(false);
});

test('an interrupt ends a program, and none is started after it', async () => {
  const stop = new AbortController();
  const running = expect(shell('echo $$ >pid; exec sleep 600', { signal: stop.signal })).rejects.toThrow(
    'enough',
  );
  await expect
    .poll(() => existsSync(join(folder, 'pid')) && pidIn('pid') > 0, { timeout: 20_000 })
    .toBe(true);
  stop.abort(new Error('enough'));
  await running;
  expect(isAlive(pidIn('pid'))).toBe(false);
  await expect(shell('echo >late', { signal: stop.signal })).rejects.toThrow('enough');
  expect(existsSync(join(folder, 'late'))).toBe(false);
});
