// @ts-check
// `npm start`: from a fresh clone to the main job in one command. Arguments go to `restore`.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { ROOT } from './entries.mjs';
import { ensureBuilt, ensureInstalled, requireNode } from './setup.mjs';

requireNode();
ensureInstalled();
ensureBuilt({ types: false }); // nobody compiles against it here
const cli = join(ROOT, 'dist', 'cli.js');
if (!existsSync(cli)) {
  process.stderr.write('the build made no dist/cli.js: src/cli/index.ts is missing\n');
  process.exit(1);
}
// Ctrl-C reaches the program, too, which gives everything back first: this process ends after it.
process.on('SIGINT', () => {});
const child = spawnSync(process.execPath, [cli, 'restore', ...process.argv.slice(2)], { stdio: 'inherit' });
process.exit(child.status ?? 1);
