import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterEach, beforeEach, expect, test, vi } from 'vitest';
import { arm64 } from '../../lab/arm64/target.js';
import { baseImage, type BaseImage } from '../../lab/machine/base-image.js';
import { STATUS } from '../../lab/machine/failure.js';
import { ROOT } from '../../scripts/entries.mjs';

let folder: string;
beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'lab-test-'))));
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});

/** Fetches a base image with an apt that behaves as told. */
function fetchWith(mode: string, signal = new AbortController().signal): Promise<BaseImage> {
  const fake = fileURLToPath(new URL('./fixtures/fake-apt-get.mjs', import.meta.url));
  const script = `#!/bin/sh\nexec '${process.execPath}' '${fake}' "$@"\n`;
  writeFileSync(join(folder, 'apt-get'), script);
  chmodSync(join(folder, 'apt-get'), 0o755);
  vi.stubEnv('PATH', `${folder}:${process.env['PATH']}`);
  vi.stubEnv('FAKE_APT', mode);
  vi.stubEnv('FAKE_APT_LOG', join(folder, 'log'));
  vi.stubEnv('FAKE_APT_STARTED', join(folder, 'started'));
  const codename = (): Promise<string> => Promise.resolve('trixie');
  return baseImage({
    root: ROOT,
    cache: join(folder, 'cache'),
    target: arm64,
    choice: 'newest',
    refresh: false,
    signal,
    say: () => {},
    codename,
  });
}

const leftovers = (): string[] => readdirSync(join(folder, 'cache', 'arm64'));

test('without a source of packages the lab says what to add', async () => {
  const fetching = fetchWith('none');
  await expect(fetching).rejects.toThrow('apt has no source entry for a Debian release');
  await expect(fetching).rejects.toMatchObject({ status: STATUS.unavailable });
  expect(leftovers()).toEqual([]);
});

test('a download that is cut off leaves nothing, and says what apt said', async () => {
  const fetching = fetchWith('cut');
  await expect(fetching).rejects.toThrow(
    'the newest kernel for arm64 is unavailable: apt-get -q failed: E: Failed to fetch the kernel: connection closed',
  );
  await expect(fetching).rejects.toMatchObject({ status: STATUS.unavailable });
  expect(leftovers()).toEqual([]);
  expect(readFileSync(join(folder, 'log'), 'utf8')).toContain('-t trixie-backports download linux-image-7.0');
});

test('a package that is damaged leaves nothing, and is named', async () => {
  const fetching = fetchWith('damaged');
  await expect(fetching).rejects.toThrow(
    /the newest kernel for arm64 is unavailable: dpkg-deb -x failed: .*unexpected end of file.*\.deb/,
  );
  await expect(fetching).rejects.toMatchObject({ status: STATUS.unavailable });
  expect(leftovers()).toEqual([]);
});

test('what a killed run left half-made goes with the next one, not what one under way is making', async () => {
  const parent = join(folder, 'cache', 'arm64');
  const made = ['newest.partial-killed', 'newest.partial-under-way', 'stable'].map((name) =>
    join(parent, name),
  );
  for (const each of made) mkdirSync(each, { recursive: true });
  const twoDaysAgo = new Date(Date.now() - 2 * 86_400_000);
  utimesSync(made[0]!, twoDaysAgo, twoDaysAgo);
  utimesSync(made[2]!, twoDaysAgo, twoDaysAgo);
  await expect(fetchWith('none')).rejects.toThrow('no source entry');
  expect(leftovers().sort()).toEqual(['newest.partial-under-way', 'stable']);
});

test('an interrupt ends the download and leaves nothing', async () => {
  const stop = new AbortController();
  const fetching = expect(fetchWith('slow', stop.signal)).rejects.toThrow('enough');
  await expect.poll(() => existsSync(join(folder, 'started')), { timeout: 20_000 }).toBe(true);
  const pid = Number(readFileSync(join(folder, 'started'), 'utf8'));
  stop.abort(new Error('enough'));
  await fetching;
  expect(() => process.kill(pid, 0)).toThrow('ESRCH');
  expect(leftovers()).toEqual([]);
});
