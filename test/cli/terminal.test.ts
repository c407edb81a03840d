import { writeFileSync } from 'node:fs';
import { afterAll, describe, expect, test } from 'vitest';
import { type CliOptions, TerminalRun, widest, Workplace } from './cli.js';
import { linesOn } from './pseudo-terminal.js';

const place = new Workplace();
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
