// @ts-check
// `npm start`: from a fresh clone to the main job in one command. Arguments go to `restore`.
import { spawn } from 'node:child_process';
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
const child = spawn(process.execPath, [cli, 'restore', ...process.argv.slice(2)], { stdio: 'inherit' });
// The program gives everything back first: this process ends after it. A terminal's signals reach both.
for (const signal of /** @type {const} */ (['SIGINT', 'SIGQUIT', 'SIGHUP'])) process.on(signal, () => {});
process.on('SIGTERM', () => child.kill('SIGTERM'));
child.on('exit', (status) => process.exit(status ?? 1));
