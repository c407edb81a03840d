// @ts-check
// `npm test`: set up, build, check statically, run the tests, and end with one line of counts.
// `--long` lengthens the property tests and fuzzing; every other argument goes to vitest.
import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { arch, cpus, release, totalmem, type } from 'node:os';
import { dirname, join } from 'node:path';
import { runChecks } from './checks.mjs';
import { ROOT } from './entries.mjs';
import { ensureBuilt, ensureInstalled, program, requireNode, run } from './setup.mjs';

const long = process.argv.includes('--long');
const vitestArgs = process.argv.slice(2).filter((argument) => argument !== '--long');

printHost();
requireNode();
ensureInstalled();
ensureBuilt();
printBackends();

const checks = runChecks();
const tests = runTests();
const counts = {
  passed: checks.passed.length + tests.passed,
  failed: checks.failed.length + tests.failed,
  skipped: tests.skipped,
};
process.stdout.write(`\n${checks.passed.length + checks.failed.length} static checks and `);
process.stdout.write(`${tests.passed + tests.failed + tests.skipped} tests`);
process.stdout.write(checks.failed.length ? `; checks that failed: ${checks.failed.join(', ')}\n` : '\n');
process.stdout.write(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped\n`);
process.exit(counts.failed === 0 && tests.status === 0 ? 0 : 1);

function printHost() {
  const page = spawnSync('getconf', ['PAGESIZE'], { encoding: 'utf8' }).stdout?.trim() || 'unknown';
  process.stdout.write(`kernel ${type()} ${release()}, architecture ${arch()}, page size ${page} bytes\n`);
  const gibibytes = (totalmem() / 2 ** 30).toFixed(1);
  process.stdout.write(`node ${process.version}, ${cpus().length} CPUs, ${gibibytes} GiB of memory\n`);
}

/** Which backends this host can run, said by the program that will run them. */
function printBackends() {
  const cli = join(ROOT, 'dist', 'cli.js');
  if (!existsSync(cli)) return;
  try {
    process.stdout.write(execFileSync(process.execPath, [cli, 'doctor', '--brief'], { encoding: 'utf8' }));
  } catch (error) {
    process.stdout.write(`doctor --brief failed: ${error instanceof Error ? error.message : error}\n`);
  }
}

/** @returns {{ passed: number, failed: number, skipped: number, status: number }} */
function runTests() {
  const file = join(ROOT, '.cache', 'counts.json');
  mkdirSync(dirname(file), { recursive: true });
  rmSync(file, { force: true });
  const status = run('tests', process.execPath, [program('vitest'), 'run', ...vitestArgs], {
    env: {
      ...process.env,
      DEMAND_PAGING_COUNTS: file,
      ...(long ? { DEMAND_PAGING_LONG: '1' } : {}),
    },
  });
  // No counts means that the run broke off: that is a failure, whatever ran before it.
  const counts = existsSync(file)
    ? JSON.parse(readFileSync(file, 'utf8'))
    : { passed: 0, failed: 1, skipped: 0 };
  if (status !== 0 && counts.failed === 0) counts.failed = 1;
  return { ...counts, status };
}
