// @ts-check
// The static checks, in the order in which they are cheapest to fail.
import { mkdirSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from './entries.mjs';
import { program, run } from './setup.mjs';

/** Where the packed tarball lies, below the root. */
const PACKAGE_FOLDER = '.cache/package';

/** @type {ReadonlyArray<{ name: string, dependency: string, bin?: string, args: readonly string[] }>} */
const SOURCE_CHECKS = [
  { name: 'types', dependency: 'typescript', bin: 'tsc', args: ['-p', '.', '--noEmit'] },
  { name: 'lint', dependency: 'eslint', args: ['.', '--max-warnings', '0'] },
  { name: 'format', dependency: 'prettier', args: ['--check', '--log-level', 'warn', '.'] },
  { name: 'dead code', dependency: 'knip', args: ['--no-progress'] },
];

/**
 * Runs every static check, each to its end, so that one run shows all that is wrong. `dist` must be built.
 * @returns {{ passed: string[], failed: string[] }} names of the checks
 */
export function runChecks() {
  /** @type {{ passed: string[], failed: string[] }} */
  const outcome = { passed: [], failed: [] };
  /** @param {string} name @param {number} status */
  const note = (name, status) => (status === 0 ? outcome.passed : outcome.failed).push(name);

  for (const { name, dependency, bin, args } of SOURCE_CHECKS) {
    note(name, run(name, process.execPath, [program(dependency, bin), ...args]));
  }
  const tarball = pack();
  note('package', tarball === undefined ? 1 : lintPackage(tarball));
  note('package types', tarball === undefined ? 1 : lintTypes(tarball));
  return outcome;
}

/** @returns {string | undefined} the tarball as a user would get it, relative to the root */
function pack() {
  rmSync(join(ROOT, PACKAGE_FOLDER), { recursive: true, force: true });
  mkdirSync(join(ROOT, PACKAGE_FOLDER), { recursive: true });
  const args = ['pack', '--ignore-scripts', '--loglevel', 'warn', '--pack-destination', PACKAGE_FOLDER];
  if (run('pack', 'npm', args) !== 0) return undefined;
  const [name] = readdirSync(join(ROOT, PACKAGE_FOLDER));
  return name === undefined ? undefined : join(PACKAGE_FOLDER, name);
}

/** @param {string} tarball */
function lintPackage(tarball) {
  return run('package', process.execPath, [program('publint'), 'run', '--strict', tarball]);
}

/** @param {string} tarball */
function lintTypes(tarball) {
  const { exports } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8'));
  const subpaths = Object.keys(exports).filter((path) => !path.endsWith('.json'));
  return run('package types', process.execPath, [
    program('@arethetypeswrong/cli', 'attw'),
    tarball,
    ...['--profile', 'esm-only', '--no-definitely-typed', '--no-emoji', '--format', 'ascii'],
    ...['--entrypoints', ...subpaths],
  ]);
}
