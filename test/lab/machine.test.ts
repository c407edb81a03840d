import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { arm64 } from '../../lab/arm64/target.js';
import { LabFailure, STATUS } from '../../lab/machine/failure.js';
import { boundToThis } from '../../lab/machine/machine.js';
import { type Outcome } from '../../lab/machine/outcome.js';
import { checkNeeds, runMachine } from '../../lab/machine/run.js';
import { type Target } from '../../lab/machine/target.js';

type Step = Readonly<Record<string, unknown>>;

const SUITES = ['one', 'two'].map((name) => ({ name, source: `lab/suites/${name}.ts`, long: false }));
const START = { record: { kind: 'start', release: '7.0-test', version: '#1', uptime: 5 } };
const END = { record: { kind: 'end', uptime: 9 } };
const begin = (suite: string): Step => ({ record: { kind: 'suite', suite, uptime: 6 } });
const end = (suite: string, status = 0): Step => ({
  record: { kind: 'suite-end', suite, status, uptime: 8.5 },
});
const passed = (suite: string, more: object = {}): Step => ({
  test: { kind: 'test', suite, name: 'it works', status: 'passed', ms: 3, ...more },
});

let folder: string;
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'lab-test-'))));
afterEach(() => rmSync(folder, { recursive: true, force: true }));

/** A machine whose QEMU is a script that does these steps. */
async function machine(
  steps: readonly Step[],
  options: {
    bootLimit_ms?: number;
    timeLimit_ms?: number;
    signal?: AbortSignal;
    suites?: typeof SUITES;
  } = {},
): Promise<Outcome> {
  const program = join(folder, 'qemu');
  const fake = fileURLToPath(new URL('./fixtures/fake-qemu.mjs', import.meta.url));
  const script = `#!/bin/sh\nexport FAKE_QEMU_PID='${join(folder, 'pid')}' FAKE_QEMU='${JSON.stringify(steps)}'\nexec '${process.execPath}' '${fake}' "$@"\n`;
  writeFileSync(program, script);
  chmodSync(program, 0o755);
  const target: Target = { ...arm64, qemu: { program, debianPackage: 'none' } };
  return runMachine(
    {
      target,
      suites: options.suites ?? SUITES.slice(0, 1),
      vitest: [],
      memory: 1,
      bootLimit_ms: options.bootLimit_ms ?? 60_000,
      timeLimit_ms: options.timeLimit_ms ?? 60_000,
      signal: options.signal ?? new AbortController().signal,
      say: () => {},
      onConsole: () => {},
    },
    'vmlinuz',
    { initrd: 'initrd', folder, kept: folder, suiteLimit: 60 },
  );
}

/** Whether the fake QEMU is still there. */
function isAlive(): boolean {
  try {
    process.kill(Number(readFileSync(join(folder, 'pid'), 'utf8')), 0);
    return true;
  } catch {
    return false;
  }
}

test('tests, their reasons, measurements and files come back', async () => {
  const outcome = await machine([
    START,
    begin('one'),
    passed('one'),
    passed('one', { name: 'not here', status: 'skipped', reason: 'no GIC' }),
    { record: { kind: 'measurement', suite: 'one', name: 'depth', value: 4 } },
    { record: { kind: 'file', suite: 'one', name: 'v.jsonl', text: 'lines\n' } },
    end('one'),
    END,
  ]);
  expect(outcome.counts()).toEqual({ passed: 1, failed: 0, skipped: 1 });
  expect(outcome.suites['one']).toMatchObject({ measurements: { depth: 4 }, seconds: 2.5 });
  expect(readFileSync(join(folder, 'files', 'v.jsonl'), 'utf8')).toBe('lines\n');
});

test.each([
  ['a test that crashes Node', [passed('one'), end('one', 139)], /node ended by signal 11/],
  ['a suite that is too slow', [passed('one'), end('one', 137)], /took longer than 60 s, or memory ran out/],
  ['a suite that cannot be loaded', [end('one', 1)], /node ended with status 1/],
  ['a suite without tests', [end('one')], /it ran no test/],
  [
    'a skip without a reason',
    [passed('one', { status: 'skipped' }), end('one')],
    /skipped without a reason: it works/,
  ],
])('%s is a failure that says so', async (_what, steps, reason) => {
  const outcome = await machine([START, begin('one'), ...steps, END]);
  expect(outcome.counts().failed).toBe(1);
  expect(outcome.suites['one']!.tests.find(({ status }) => status === 'failed')!.reason).toMatch(reason);
});

test('a suite that never began is a failure', async () => {
  const outcome = await machine([START, begin('one'), passed('one'), end('one'), END], { suites: SUITES });
  expect(outcome.suites['two']!.tests).toMatchObject([{ status: 'failed' }]);
});

test('a kernel that does not boot within its time', async () => {
  const run = machine([{ hang: true }], { bootLimit_ms: 3000 });
  await expect(run).rejects.toThrow('the kernel did not boot within 3 s');
  await expect(run).rejects.toMatchObject({ hint: expect.stringContaining('console.log') as string });
  expect(isAlive()).toBe(false);
});

test('a kernel that cannot be started at all, with what QEMU says', async () => {
  const run = machine([{ stderr: 'qemu: could not load kernel\n' }, { exit: 1 }]);
  await expect(run).rejects.toThrow('the kernel did not boot: qemu: could not load kernel');
});

test('a panic is quoted, with the suite that ran', async () => {
  const panic = '[ 12.0] Kernel panic - not syncing: Attempted to kill init!\r\n';
  const run = machine([START, begin('one'), { console: panic }]);
  await expect(run).rejects.toThrow(
    "the guest's kernel panicked while one ran: Kernel panic - not syncing: Attempted to kill init!",
  );
  expect(readFileSync(join(folder, 'console.log'), 'utf8')).toContain('Kernel panic');
});

test('a guest that hangs is switched off', async () => {
  const run = machine([START, begin('one'), { hang: true }], { timeLimit_ms: 3000 });
  await expect(run).rejects.toThrow('the time limit of 3 s passed while one ran');
  expect(isAlive()).toBe(false);
});

test('a machine that goes away without a word', async () => {
  const run = machine([START, begin('one'), { raw: '{"kind":"te' }, { exit: 5 }]);
  await expect(run).rejects.toThrow('the machine went away while one ran: QEMU status 5');
});

test('an interrupt ends QEMU and closes its sockets', async () => {
  const stop = new AbortController();
  const run = machine([START, { record: begin('one')['record'] }, { hang: true }], { signal: stop.signal });
  const began = expect(run).rejects.toThrow('enough');
  await expect.poll(() => isAlive(), { timeout: 20_000 }).toBe(true);
  stop.abort(new Error('enough'));
  await began;
  expect(isAlive()).toBe(false);
  expect(readdirSync(folder).filter((name) => name.startsWith('lab.'))).toEqual([]);
});

test('without QEMU the lab names its package', () => {
  const target = { ...arm64, qemu: { program: 'qemu-system-nowhere', debianPackage: 'qemu-system-arm' } };
  expect(() => checkNeeds(target)).toThrow(LabFailure);
  try {
    checkNeeds(target);
  } catch (error) {
    expect(error).toMatchObject({
      status: STATUS.unavailable,
      message: 'qemu-system-nowhere is not installed',
      hint: 'apt-get install qemu-system-arm',
    });
  }
});

test('without the tools of Debian the lab names all their packages at once', () => {
  vi.stubEnv('PATH', '/nowhere');
  const target = { ...arm64, qemu: { program: process.execPath, debianPackage: 'none' } };
  const missing = (): void => checkNeeds(target);
  expect(missing).toThrow(/the lab needs .*dpkg-deb, cpio, xz/);
  vi.unstubAllEnvs();
});

test('when the lab is killed, its QEMU goes with it', async (context) => {
  const [program, ...args] = boundToThis('sleep', ['600']);
  if (program === 'sleep') return context.skip('no setpriv here');
  const parent = spawn(
    process.execPath,
    [
      '-e',
      `const child = require('child_process').spawn(${JSON.stringify(program)}, ${JSON.stringify(args)}); console.log(child.pid)`,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const [line] = (await once(parent.stdout, 'data')) as [Buffer];
  const pid = Number(line.toString());
  const runs = (): boolean => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, 'utf8').startsWith('sleep');
    } catch {
      return false;
    }
  };
  await expect.poll(runs, { timeout: 20_000 }).toBe(true);
  parent.kill('SIGKILL');
  await expect.poll(runs, { timeout: 20_000 }).toBe(false);
});
