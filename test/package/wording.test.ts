import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { ROOT } from '../../scripts/entries.mjs';

/** What must be in no file, put together here so that this file does not hold it either. */
const FORBIDDEN: ReadonlyArray<readonly [what: string, pattern: RegExp]> = [
  ['the host of a package registry', new RegExp(['registry', '(npmjs|yarnpkg|npmmirror)'].join('\\.'), 'i')],
  ['the host of a package registry', new RegExp(['npm', '(jsr|pkg)', ''].join('\\.'), 'i')],
  [
    'the host of a package mirror',
    new RegExp(['(deb|security|snapshot|ftp)', 'debian', 'org'].join('\\.'), 'i'),
  ],
  [
    'a path of one machine',
    new RegExp(`(^|[\\s'"\`(=:])/(${['wo' + 'rk', 'ro' + 'ot', 'ho' + 'me'].join('|')})/`),
  ],
];

/** Files that are written by people: what git knows and what it would add. */
function writtenFiles(): string[] {
  const args = ['-c', 'safe.directory=*', 'ls-files', '-z', '--cached', '--others', '--exclude-standard'];
  const listed = existsSync(join(ROOT, '.git'))
    ? execFileSync('git', args, { cwd: ROOT, encoding: 'utf8' }).split('\0')
    : readdirSync(ROOT, { recursive: true, encoding: 'utf8' }).filter(
        (file) => !/^(node_modules|dist|coverage|\.cache|docs\/api)(\/|$)/.test(file),
      );
  return listed.filter(
    (file) => file !== '' && existsSync(join(ROOT, file)) && statSync(join(ROOT, file)).isFile(),
  );
}

function faults(file: string, text: string): string[] {
  return text
    .split('\n')
    .flatMap((line, index) =>
      FORBIDDEN.filter(([, pattern]) => pattern.test(line)).map(
        ([what]) => `${file}:${index + 1} holds ${what}`,
      ),
    );
}

test('no file holds the host of a registry or a path of one machine', () => {
  const files = writtenFiles();
  expect(files).toContain('package.json');
  expect(files.flatMap((file) => faults(file, readFileSync(join(ROOT, file), 'latin1')))).toEqual([]);
});

test('the search finds each', () => {
  const samples = [
    `"resolved": "https://${'registry'}.npmjs.org/x"`,
    `https://${'npm'}.jsr.io`,
    `http://${'deb'}.debian.org/debian`,
    `see /${'work'}/there`,
    `"/${'root'}/.config"`,
  ];
  for (const sample of samples) expect(faults('sample', sample), sample).toHaveLength(1);
  expect(faults('sample', 'the framework/root/home of a network/work item')).toEqual([]);
});

test('the lock names no registry', () => {
  expect(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')).not.toContain('"resolved"');
});
