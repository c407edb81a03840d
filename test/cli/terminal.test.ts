import { spawnSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { type CliOptions, TerminalRun, vectors, widest, Workplace } from './cli.js';
import { linesOn } from './pseudo-terminal.js';

const place = new Workplace();
const fixture = (name: string): string => new URL(`fixtures/uapis/${name}`, import.meta.url).pathname;
afterAll(() => place[Symbol.dispose]());

const CLOSED = /^closed: no descriptor, thread, mapping or process is left$/m;

/** Everything that holds of what any command writes to a terminal. */
function expectFit(written: string, columns: number): void {
  expect(widest(linesOn(written).join('\n'))).toBeLessThanOrEqual(columns);

  expect(written).not.toMatch(/\x1b\[[0-9;]*m/); // no colour
  expect(written).not.toMatch(/^ +at .*:\d+:\d+/m); // no stack trace
}

/** Runs a command in a terminal to its end. */
async function inTerminal(args: readonly string[], columns: number, options: CliOptions = {}) {
  using run = new TerminalRun(args, columns, { ...place.options, ...options });
  const end = await run.ended;
  expectFit(end.written, columns);
  return end;
}

const small = place.path('small.img');
writeFileSync(small, Buffer.alloc(1 << 20, 'small '));

describe('restore in a terminal', () => {
  test.each([
    [80, []],
    [120, [small]],
  ])('of %i columns finds nothing left', async (columns, image) => {
    const { status, written } = await inTerminal(['restore', ...image], columns);
    expect(linesOn(written).join('\n')).toMatch(CLOSED);
    expect(status).toBe(0);
  });

  // Whatever Node makes of each standard stream at its first use, is no leak.
  test.each<[string, CliOptions]>([
    ['standard output is /dev/null', { stdout: { to: '/dev/null' } }],
    ['standard output is a file', { stdout: { to: place.path('out') } }],
    ['standard output is closed', { stdout: 'closed' }],
    ['standard error is closed', { stderr: 'closed' }],
    ['standard error is a file', { stderr: { to: place.path('err') } }],
    ['standard input is /dev/null', { stdin: { to: '/dev/null' } }],
    ['standard input is closed', { stdin: 'closed' }],
    ['all of them are closed', { stdin: 'closed', stdout: 'closed', stderr: 'closed' }],
  ])('finds nothing left when %s', async (_what, options) => {
    const { status } = await inTerminal(['restore', small, '--accessors', '2'], 80, options);
    expect(status).toBe(0);
  });

  test('--quiet says nothing, --json one document', async () => {
    expect(await inTerminal(['restore', small, '--quiet'], 80)).toEqual({ status: 0, written: '' });
    using run = new TerminalRun(['restore', small, '--json'], 80, place.options);
    const { status, written } = await run.ended;
    expect(JSON.parse(written)).toMatchObject({ ok: true, leaks: { descriptors: 0, descriptorsOf: [] } });
    expect(status).toBe(0);
  });
});

const [HIDE_CURSOR, SHOW_CURSOR] = ['\x1b[?25l', '\x1b[?25h'];

describe('every command in a terminal', () => {
  const COLOURS = [{ NO_COLOR: '1' }, { FORCE_COLOR: '1' }] as const;

  test.each<[string, number, readonly string[]]>([
    ['--help', 0, ['--help']],
    ['doctor --brief', 0, ['doctor', '--brief']],
    ['doctor', 0, ['doctor']],
    ['scenario, every UAPI', 0, ['scenario']],
    ['scenario', 0, ['scenario', 'balloon', '--uapi', 'present-bitmap+uffd']],
    ['scenario, with timelines', 0, ['scenario', 'many-vcpus', '--uapi', 'async-pf', 'present-bitmap']],
    ['scenario --help', 0, ['scenario', '--help']],
    ['uapi', 0, ['uapi', 'present-bitmap']],
    ['uapi --header', 0, ['uapi', 'kvm-userfault', '--header']],
    ['uapi of a module', 0, ['uapi', fixture('sound.mjs')]],
    ['uapi, with a name that is none', 1, ['uapi', 'nothing']],
    ['conformance --help', 0, ['conformance', '--help']],
    ['its replay', 0, ['its', 'replay', vectors('B')]],
    ['its dump', 0, ['its', 'dump', vectors('B')]],
    ['its plan', 0, ['its', 'plan', `${vectors('B')}#B-060`, '--explain']],
    ['conformance', 0, ['conformance', '--runs', '1', '--only', 'install-once']],
    [
      'conformance, where properties fail',
      1,
      ['conformance', '--runs', '1', '--backend', fixture('lies.mjs')],
    ],
    ['a wrong command', 2, ['nonsense']],
    ['a wrong option', 2, ['restore', '--nonsense']],
    ['a failure', 1, ['restore', '/nowhere']],
  ])('%s ends with status %i, inside 80 and 120 columns, without a stack', async (_what, expected, args) => {
    for (const [index, columns] of [80, 120].entries()) {
      const env = { ...place.options.env, ...COLOURS[index] };
      const { status, written } = await inTerminal(args, columns, { env });
      expect(written).not.toBe('');
      expect(status).toBe(expected);
    }
  });

  test('uapi --header, whose lines were wrapped, compiles', async (context) => {
    if (spawnSync('gcc', ['--version']).status !== 0) context.skip('no gcc');
    for (const name of ['present-bitmap', 'kvm-userfault', 'async-pf', 'file-uffd']) {
      const { written } = await inTerminal(['uapi', name, '--header'], 80);
      const flags = ['-fsyntax-only', '-Wall', '-Wextra', '-Werror', '-std=c11', '-xc', '-'];
      const compiled = spawnSync('gcc', flags, { input: `${written}\nint main(void) { return 0; }\n` });
      expect(String(compiled.stderr)).toBe('');
    }
  });

  test('one that does not know its size gets lines of 80 columns', async () => {
    using run = new TerminalRun(['doctor', '--brief'], 0, place.options);
    const { status, written } = await run.ended;
    expectFit(written, 80);
    expect(widest(linesOn(written).join('\n'))).toBeGreaterThan(40);
    expect(status).toBe(0);
  });

  test('restore ends in order on Ctrl-C', async () => {
    using run = new TerminalRun(
      ['restore', '--no-prefetch', '--latency', '40', '--fault-around', '1', '--accessors', '2'],
      80,
      place.options,
    );
    await run.terminal.shows(/12 288 pages: /);
    run.terminal.type('\x03');
    const { status, written } = await run.ended;
    expect(written).toContain('interrupted: everything was given back');
    expect(status).toBe(130);
  });

  test('conformance ends on Ctrl-C, by the signal', async () => {
    using run = new TerminalRun(['conformance', '--runs', '100000'], 80, place.options);
    await run.terminal.shows(/cells evaluated/);
    run.terminal.type('\x03');
    const { status, written } = await run.ended;
    expect(status).toBe('SIGINT');
    expectFit(written, 80);
    expect(written.lastIndexOf(SHOW_CURSOR)).toBeGreaterThan(written.lastIndexOf(HIDE_CURSOR));
  });

  test(
    'conformance --matrix says what it has evaluated and written',
    { timeout: 1_800_000 },
    async (context) => {
      if (process.env['DEMAND_PAGING_LONG'] !== '1')
        context.skip('many minutes: in the long run (DEMAND_PAGING_LONG=1)');
      const out = place.path('matrix');
      const matrix = ['conformance', '--matrix', '--runs', '1', '--live-runs', '1', '--out', out];
      const { status, written } = await inTerminal(matrix, 80);
      expect(written).toMatch(/evaluated in .*; written: [^]*matrix\.html/);
      expect(readFileSync(join(out, 'matrix.html'), 'utf8')).toContain('<!doctype html>');
      expect(status).toBe(0);
    },
  );

  test.each([
    [80, { NO_COLOR: '1' }],
    [120, { FORCE_COLOR: '1' }],
  ])('of %i columns: conformance --matrix ends on Ctrl-C, by the signal', async (columns, colour) => {
    const env = { ...place.options.env, ...colour };
    const matrix = ['conformance', '--matrix', '--out', place.path(`matrix-${columns}`)];
    using run = new TerminalRun(matrix, columns, { env });
    await run.terminal.shows(/█/); // some of it is done
    run.terminal.type('\x03');
    const { status, written } = await run.ended;
    expect(status).toBe('SIGINT');
    expectFit(written, columns);
    expect(written).toMatch(/\d of \d+ evaluated/);
    expect(written.lastIndexOf(SHOW_CURSOR)).toBeGreaterThan(written.lastIndexOf(HIDE_CURSOR));
  });
});
