// @ts-check
// What a fresh clone lacks, made on demand: the dependencies and the build. Node's builtins only,
// because this runs before anything is installed.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { ROOT } from './entries.mjs';

const STDERR = 2;
const STAMP = join(ROOT, 'node_modules', '.cache', 'demand-paging', 'build.json');

/** Everything the build is made of, besides the dependencies that the lock pins. */
const BUILD_INPUTS = ['src', 'scripts/entries.mjs', 'package-lock.json', 'tsconfig.json', 'tsup.config.ts'];

/**
 * Runs a program with its output in view.
 * @param {string} title what the reader sees first
 * @param {string} command
 * @param {readonly string[]} args
 * @param {{ env?: NodeJS.ProcessEnv, output?: 'inherit' | number }} [options] `output`: where its standard output goes
 * @returns {number} its exit status; 1 if it did not run or was ended by a signal
 */
export function run(title, command, args, options = {}) {
  // Standard output is the program's alone: what a benchmark prints as JSON must stay JSON.
  process.stderr.write(`\n== ${title}: ${[command, ...args].join(' ')}\n`);
  const started = performance.now();
  const { env = process.env, output = 'inherit' } = options;
  const child = spawnSync(command, args, { cwd: ROOT, stdio: ['inherit', output, 'inherit'], env });
  if (child.error) process.stderr.write(`${child.error.message}\n`);
  if (child.signal) process.stderr.write(`ended by ${child.signal}\n`);
  const status = child.status ?? 1;
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  process.stderr.write(
    `== ${title}: ${status === 0 ? 'ok' : `failed with status ${status}`}, ${seconds} s\n`,
  );
  return status;
}

/**
 * The installed program of a development dependency, run by this very node.
 * @param {string} name the dependency
 * @param {string} [bin] its program, where that is named otherwise
 */
export function program(name, bin = name) {
  const folder = join(ROOT, 'node_modules', name);
  const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
  const path = typeof manifest.bin === 'string' ? manifest.bin : manifest.bin[bin];
  return join('node_modules', name, path);
}

/** Ends the process with a message when this node is older than package.json says. */
export function requireNode() {
  const wanted = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')).engines.node;
  const least = wanted.replace('>=', '').split('.').map(Number);
  const mine = process.versions.node.split('.').map(Number);
  const place = [0, 1, 2].find((index) => (mine[index] ?? 0) !== (least[index] ?? 0));
  if (place !== undefined && (mine[place] ?? 0) < (least[place] ?? 0)) {
    process.stderr.write(`demand-paging needs node ${wanted}, this is ${process.version}\n`);
    process.exit(1);
  }
}

/** @returns {string | undefined} why the dependencies must be installed, if they must */
export function whyInstall() {
  const installed = join(ROOT, 'node_modules', '.package-lock.json');
  if (!existsSync(installed)) return 'node_modules is missing';
  const wanted = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')).packages;
  const present = JSON.parse(readFileSync(installed, 'utf8')).packages;
  for (const [path, entry] of Object.entries(wanted)) {
    if (path === '') continue;
    const there = present[path];
    // Packages for other platforms are in the lock and not on the disk.
    if (!there && (entry.optional || entry.devOptional || entry.peer)) continue;
    if (there?.version !== entry.version || there?.integrity !== entry.integrity) {
      return `${path} is ${there?.version ?? 'missing'}, package-lock.json wants ${entry.version}`;
    }
  }
  return undefined;
}

/** Installs exactly what package-lock.json says, if it is not there already. */
export function ensureInstalled() {
  const reason = whyInstall();
  if (reason === undefined) return;
  process.stderr.write(`dependencies: ${reason}\n`);
  const status = run('install', 'npm', ['ci', '--no-audit', '--no-fund'], { output: STDERR });
  if (status !== 0) process.exit(status);
}

/**
 * @param {boolean} types whether the declarations are needed, too
 * @returns {string | undefined} why the build must run, if it must
 */
export function whyBuild(types) {
  if (!existsSync(join(ROOT, 'dist', 'index.js'))) return 'dist is missing';
  if (types && !existsSync(join(ROOT, 'dist', 'index.d.ts'))) return 'dist has no types';
  if (!existsSync(STAMP)) return 'dist is of unknown origin';
  const { digest } = JSON.parse(readFileSync(STAMP, 'utf8'));
  return digest === digestOfInputs() ? undefined : 'dist was built from other sources';
}

/**
 * Builds `dist` if it does not belong to the present sources.
 * @param {{ types?: boolean }} [options] `types`: with the declarations, which take most of a build's time
 */
export function ensureBuilt({ types = true } = {}) {
  const reason = whyBuild(types);
  if (reason === undefined) return;
  process.stderr.write(`build: ${reason}\n`);
  build({ types });
}

/**
 * Builds `dist` and notes what it was built from; ends the process if that fails.
 * @param {{ types?: boolean }} [options]
 */
export function build({ types = true } = {}) {
  // Taken before the build: a source that changes meanwhile makes the next run build again.
  const digest = digestOfInputs();
  const status =
    run('entries', process.execPath, [join('scripts', 'exports.mjs')], { output: STDERR }) ||
    run('build', process.execPath, [program('tsup'), ...(types ? [] : ['--no-dts'])], { output: STDERR });
  if (status !== 0) process.exit(status);
  mkdirSync(dirname(STAMP), { recursive: true });
  writeFileSync(STAMP, JSON.stringify({ digest }) + '\n');
}

function digestOfInputs() {
  const hash = createHash('sha256');
  for (const file of BUILD_INPUTS.flatMap(filesOf)) {
    hash
      .update(`${file}\0`)
      .update(readFileSync(join(ROOT, file)))
      .update('\0');
  }
  return hash.digest('hex');
}

/** @param {string} input a file or a folder @returns {string[]} */
function filesOf(input) {
  if (/\.\w+$/.test(input)) return [input];
  return readdirSync(join(ROOT, input), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(ROOT.length))
    .sort();
}
