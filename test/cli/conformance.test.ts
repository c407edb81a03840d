import { describe, expect, test } from 'vitest';
import { userfaultfdSupport } from 'demand-paging/linux';
import { cellsOf } from '../../src/cli/evaluation/cell.js';
import { type Evaluation } from '../../src/cli/evaluation/evaluation.js';
import { cli } from './cli.js';

type Document = Evaluation & { readonly runs: number; readonly counts: Readonly<Record<string, number>> };

const fixture = (name: string): string => new URL(`fixtures/uapis/${name}`, import.meta.url).pathname;

const failures = ({ cells }: Document): unknown[] => cells.filter(({ outcome }) => outcome === 'fails');

test('the model holds every property, at each site, that it does not declare away', async () => {
  const { status, stdout } = await cli(['conformance', '--backend', 'memory', '--runs', '10', '--json']);
  const document = JSON.parse(stdout) as Document;
  expect(failures(document)).toEqual([]);
  expect(document.cells).toHaveLength(cellsOf().length);
  expect(document.counts['holds']).toBeGreaterThan(100);
  expect(document.cells.find(({ property }) => property === 'install-once')).toEqual({
    property: 'install-once',
    outcome: 'holds',
    runs: 10,
  });
  expect(status).toBe(0);
});

test('userfaultfd holds them on the real kernel, with real threads', async (context) => {
  try {
    userfaultfdSupport();
  } catch (error) {
    return context.skip(String(error));
  }
  const { status, stdout } = await cli([
    'conformance',
    '--backend',
    'userfaultfd',
    '--runs',
    '2',
    '--json',
    '--only',
    'coverage-is-true',
    'no-zero-leak',
    'handler-death-is-seen',
  ]);
  const document = JSON.parse(stdout) as Document;
  expect(failures(document)).toEqual([]);
  expect(
    document.cells.find(({ property, site }) => property === 'no-zero-leak' && site === 'kernel-copy'),
  ).toMatchObject({ outcome: 'holds', runs: 2 });
  expect(status).toBe(0);
});

test('--only evaluates what is named, in text', async () => {
  const { stdout } = await cli([
    'conformance',
    '--runs',
    '5',
    '--only',
    'no-lost-wake',
    'kernel-access-errors-then-retries',
  ]);
  expect(stdout).toMatch(/^memory: the model of a kernel in this process/);
  expect(stdout).toMatch(/holds {9}no-lost-wake: vcpu-load, vcpu-store, /);
  expect(stdout).toMatch(/n\/a {11}kernel-access-errors-then-retries: kernel-copy: /);
  expect(stdout).toMatch(/memory: \d+ holds, 0 fails, 2 unmediated, 1 not applicable, 0 skipped\n$/);
});

test("a module's prototype is evaluated; what fails is told, and the status is 1", async () => {
  const { status, stdout } = await cli([
    'conformance',
    '--backend',
    fixture('lies.mjs'),
    '--runs',
    '5',
    '--only',
    'coverage-is-true',
  ]);
  expect(stdout).toMatch(
    /FAILS {9}coverage-is-true: vcpu-load[^]*declared[^]*vCPU 0 \(#1\)\s+fails at page \d: EFAULT/,
  );
  expect(status).toBe(1);
});

describe('what cannot be evaluated', () => {
  test('a module without a default export', async () => {
    const { status, stdout, stderr } = await cli(['conformance', '--backend', fixture('no-default.mjs')]);
    expect(stderr).toMatch(/^error NOT_A_UAPI: .*no default export[^]*\nhint: Write `export default`/);
    expect(stdout).toBe('');
    expect(status).toBe(1);
  });

  test('a module in TypeScript, where Node.js reads none', async (context) => {
    if (Number(process.versions.node.split('.')[0]) > 20) context.skip('this Node.js reads TypeScript');
    const { stderr } = await cli(['conformance', '--backend', fixture('typed.ts')]);
    expect(stderr).toMatch(/^error MODULE_FAILED: .*TypeScript[^]*hint: Compile it first/);
  });

  test('a property that there is not', async () => {
    const { status, stderr } = await cli(['conformance', '--only', 'no-such']);
    expect(stderr).toMatch(/there is no property 'no-such'/);
    expect(status).toBe(2);
  });
});

test('a failure is repeated by what it says of itself', async () => {
  const broken = ['conformance', '--backend', 'kvm-userfault-bit-first'];
  const title = 'no-zero-leak, read while its page is brought';
  const first = JSON.parse(
    (await cli([...broken, '--json', '--only', title, '--site', 'vcpu-load'])).stdout,
  ) as Document;
  expect(first.cells).toHaveLength(1);
  const [found] = first.cells;
  if (found?.outcome !== 'fails' || !found.replay) throw new Error(JSON.stringify(found));
  const { seed, path } = found.replay;
  const again = await cli([
    ...[...broken, '--json', '--only', title, '--site', 'vcpu-load'],
    ...['--seed', String(seed), '--path', path, '--runs', '1'],
  ]);
  expect(again.status).toBe(1);
  const { failure, trace } = found;
  expect((JSON.parse(again.stdout) as Document).cells).toMatchObject([{ outcome: 'fails', failure, trace }]);
});

test.each([
  [['--path', '1:2'], /--path is of one property at one site, not of \d+/],
  [['--only', 'no-zero-leak', '--path', '1:2'], /not of \d+: say which by --only and --site/],
  [['--site', 'gpu'], /there is no site 'gpu': vcpu-load/],
  [['--only', 'no-such'], /there is no property 'no-such': install-once/],
  [['--matrix', '--path', '1'], /it takes no --only, --site or --path/],
])('conformance %j is refused', async (args, says) => {
  const { status, stderr } = await cli(['conformance', ...args]);
  expect(stderr.replaceAll(/\s+/g, ' ')).toMatch(says);
  expect(status).toBe(2);
});
