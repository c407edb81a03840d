// @ts-check
// Runs a TypeScript program of this repository, such as a benchmark or an example, with the library
// as a user has it: the program is bundled, `demand-paging` and the dependencies stay outside.
//   node scripts/run-typescript.mjs bench/index.ts [arguments]
//   node scripts/run-typescript.mjs examples              every program of the folder, one by one
//   node scripts/run-typescript.mjs examples serve        the one of that name
import { readdirSync, statSync } from 'node:fs';
import { basename, join } from 'node:path';
import { ROOT } from './entries.mjs';
import { ensureBuilt, ensureInstalled, program, requireNode, run } from './setup.mjs';

requireNode();
ensureInstalled();
ensureBuilt({ types: false });
const [target, ...args] = process.argv.slice(2);
if (target === undefined) {
  process.stderr.write('usage: node scripts/run-typescript.mjs <file.ts | folder [name]> [arguments]\n');
  process.exit(2);
}
const sources = sourcesOf(target);
// Ctrl-C is for the program to answer, and this waits until it has ended; of several programs it ends them
// all.
if (sources.length === 1) process.on('SIGINT', () => {});
let worst = 0;
for (const source of sources) worst = Math.max(worst, runProgram(source));
process.exit(worst);

/** @param {string} path a file, or a folder whose programs may be narrowed by a first argument */
function sourcesOf(path) {
  if (statSync(join(ROOT, path)).isFile()) return [path];
  const names = readdirSync(join(ROOT, path)).filter((name) => name.endsWith('.ts'));
  const chosen = names.filter((name) => name === `${args[0]}.ts`);
  if (chosen.length > 0) args.shift();
  return (chosen.length > 0 ? chosen : names).map((name) => join(path, name));
}

/** @param {string} source relative to the root */
function runProgram(source) {
  const folder = join('.cache', 'programs');
  const bundle = run(
    'bundle',
    process.execPath,
    [
      program('tsup'),
      source,
      ...['--no-config', '--format', 'esm', '--target', 'node20', '--sourcemap', '--silent'],
      ...['--external', 'demand-paging', '--out-dir', folder],
    ],
    { output: 2 },
  );
  if (bundle !== 0) return bundle;
  const built = join(folder, `${basename(source, '.ts')}.js`);
  return run(source, process.execPath, ['--expose-gc', '--enable-source-maps', built, ...args]);
}
