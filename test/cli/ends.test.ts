import { execFileSync } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { cli, type CliOptions, CliRun, type CliEnd, vectors, Workplace } from './cli.js';

const place = new Workplace();
afterAll(() => place[Symbol.dispose]());

const small = place.path('small.img');
writeFileSync(small, Buffer.alloc(1 << 20, 'small '));

/** A rebuilt image, and something to do for a while. */
const LONG = ['restore', '--no-prefetch', '--latency', '40', '--fault-around', '1', '--accessors', '2'];
const UNDER_WAY = /^[\d ]+ of 12 288 pages: /m;

/** Nothing of a run is left, now or as soon as its processes have noticed that it ended. */
async function expectNothingLeft(): Promise<void> {
  await expect.poll(() => [...place.leftProcesses(), ...place.leftFiles()], { timeout: 10_000 }).toEqual([]);
}

const STACK = /^ +at .*:\d+:\d+/m;

/** A failure as every command says it: one line with its code, perhaps a hint, no stack. */
function expectFailure({ status, stderr }: CliEnd, message: RegExp): void {
  expect(stderr).toMatch(message);
  expect(stderr).toMatch(/^error( [A-Z_]+)?: [^\n]+\n(hint: [^\n]+\n)?$/);
  expect(stderr).not.toMatch(STACK);
  expect(status).toBe(1);
}

describe('restore, which makes its image itself', () => {
  test.each(['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'] as const)(
    'on %s gives everything back and leaves no image',
    async (signal) => {
      const run = new CliRun(LONG, place.options);
      await run.shows(UNDER_WAY);
      expect(place.leftFiles()).toEqual([]); // it has no name, so that nothing can leave it
      run.child.kill(signal);
      const { status, stderr } = await run.ended;
      expect(stderr).toMatch(/^interrupted: /);
      expect(status).toBe(130);
      await expectNothingLeft();
    },
  );

  test('leaves nothing when a signal reaches its whole process group', async () => {
    const run = new CliRun(LONG, { ...place.options, detached: true });
    await run.shows(UNDER_WAY);
    process.kill(-run.child.pid!, 'SIGTERM');
    expect(await run.ended).toMatchObject({ status: 130, stderr: expect.stringMatching(/^interrupted: /) });
    await expectNothingLeft();
  });

  test('leaves nothing when its whole process group is killed', async () => {
    const run = new CliRun(LONG, { ...place.options, detached: true });
    await run.shows(UNDER_WAY);
    process.kill(-run.child.pid!, 'SIGKILL');
    expect((await run.ended).status).toBe('SIGKILL');
    await expectNothingLeft();
  });
});

describe('a reader that goes away', () => {
  test.each([
    ['restore', [small, '--accessors', '1']],
    ['doctor', ['--brief']],
    ['its', ['replay', vectors('B')]],
    ['its', ['dump', vectors('B')]],
    ['its', ['plan', `${vectors('B')}#B-060`]],
    ['uapi', ['present-bitmap']],
    ['scenario', ['balloon']],
    ['conformance', ['--runs', '1', '--only', 'install-once']],
    ['--help', []],
  ])('ends %s %j without a word, and leaves nothing', async (command, args) => {
    const run = new CliRun([command, ...args], place.options);
    run.child.stdout!.destroy();
    const { status, stderr } = await run.ended;
    expect(stderr).toBe('');
    expect(status).toBe(0);
    await expectNothingLeft();
  });

  test('of standard error changes nothing but that it is not read', async () => {
    const run = new CliRun(['restore', '/nowhere'], place.options);
    run.child.stderr!.destroy();
    expect(await run.ended).toMatchObject({ status: 1, stdout: '' });
  });
});

test('standard output on a full disk is a failure', async () => {
  const end = await cli(['restore', small, '--accessors', '1'], {
    ...place.options,
    stdout: { to: '/dev/full' },
  });
  expectFailure(end, /^error KERNEL: standard output cannot be written \[write: ENOSPC\]/);
});

describe('a temporary folder', () => {
  const at = (folder: string): CliOptions => ({ env: { ...process.env, TMPDIR: folder } });

  /** Mounts a file system for the duration of a test. */
  function mounted(context: { skip(reason: string): never }, options: string): Disposable & { path: string } {
    const path = place.path(`mount-${options.replaceAll(/\W/g, '-')}`);
    mkdirSync(path);
    try {
      execFileSync('mount', ['-t', 'tmpfs', '-o', options, 'none', path], { stdio: 'pipe' });
    } catch {
      context.skip('nothing can be mounted here');
    }
    return { path, [Symbol.dispose]: () => void execFileSync('umount', [path]) };
  }

  test('that is not there, is named, with what to set', async () => {
    const end = await cli(['restore'], at('/nowhere'));
    expectFailure(
      end,
      /^error KERNEL: no temporary file can be made in \/nowhere \[open: ENOENT\]\nhint: Set TMPDIR/,
    );
  });

  test('without room is named', async (context) => {
    using full = mounted(context, 'size=4m');
    const end = await cli(['restore'], at(full.path));
    expectFailure(
      end,
      /^error KERNEL: the image cannot be written to .* \[write: ENOSPC\]\nhint: Set TMPDIR/,
    );
  });

  test('that cannot be written is named', async (context) => {
    using full = mounted(context, 'ro');
    const end = await cli(['restore'], at(full.path));
    expectFailure(
      end,
      /^error KERNEL: no temporary file can be made in .* \[open: EROFS\]\nhint: Set TMPDIR/,
    );
  });

  test('is not needed by a restore of an image', async () => {
    expect((await cli(['restore', small, '--accessors', '1'], at('/nowhere'))).status).toBe(0);
  });
});

test('conformance --matrix says that its folder cannot be made', async () => {
  const end = await cli(['conformance', '--matrix', '--out', join(small, 'matrix')], place.options);
  expectFailure(end, /^error KERNEL: .*small\.img.* \[mkdir: ENOTDIR\]/);
});

describe('what is no image', () => {
  const fifo = place.path('fifo');
  execFileSync('mkfifo', [fifo]);

  test.each([
    [fifo, 'a FIFO'],
    ['/dev/zero', 'a character device'],
    ['/', 'a directory'],
  ])('%s is refused at once as %s', async (path, kind) => {
    expectFailure(await cli(['restore', path], place.options), new RegExp(`^error SOURCE_FAILED: .*${kind}`));
    const dump = await cli(['its', 'dump', path, '--vector', vectors('B')], place.options);
    expectFailure(dump, new RegExp(`^error SOURCE_FAILED: .*${kind}`));
  });

  test('a vector is no device, but may come through a pipe', async () => {
    expectFailure(
      await cli(['its', 'replay', '/dev/zero'], place.options),
      /^error SOURCE_FAILED: .*neither a file/,
    );
    const read = cli(['its', 'replay', fifo], place.options);
    execFileSync('sh', ['-c', `head -n 1 '${vectors('B')}' > '${fifo}'`]);
    expect(await read).toMatchObject({ status: 0, stdout: expect.stringMatching(/1 passed, 0 failed\n$/) });
  });
});

describe('a host without /proc', () => {
  /** The program where nothing is mounted at /proc. */
  async function withoutProc(...args: string[]): Promise<CliEnd> {
    const hide = 'mount -t tmpfs none /proc && exec "$0" "$@"';
    const run = new CliRun(args, { ...place.options, before: ['unshare', '-m', 'sh', '-c', hide] });
    return run.ended;
  }

  test('restores, and says that it cannot tell what is left', async (context) => {
    if (process.getuid?.() !== 0) return context.skip('only root can hide /proc');
    const { status, stdout, stderr } = await withoutProc('restore', '--accessors', '1');
    expect(stderr).toBe('');
    expect(stdout).toMatch(/^closed; this host does not tell what is left$/m);
    expect(status).toBe(0);
  });

  test('has no huge pages that could be counted, which is said', async (context) => {
    if (process.getuid?.() !== 0) return context.skip('only root can hide /proc');
    const end = await withoutProc('restore', '--memory', 'hugetlb');
    expectFailure(end, /^error NO_DEVICE: .*\/proc\/meminfo \[open: ENOENT\]\nhint: Mount \/proc/);
    const doctor = await withoutProc('doctor', '--brief');
    expect(doctor.stderr).toBe('');
    expect(doctor.status).toBe(0);
  });
});
