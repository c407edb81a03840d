// @ts-check
// `npm run lab:arm64`, `npm run lab:x86`: bundles lab/lab.ts and runs it in this very process, so that
// a signal meets the one that has an emulator to end.
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ROOT } from './entries.mjs';
import { ensureBuilt, ensureInstalled, program, requireNode, run } from './setup.mjs';

requireNode();
ensureInstalled();
// Only the library's code goes into the machine, not its types.
ensureBuilt({ types: false });
const folder = join('.cache', 'programs', 'lab');
const status = run(
  'bundle',
  process.execPath,
  [
    program('tsup'),
    'lab/lab.ts',
    ...['--no-config', '--format', 'esm', '--target', 'node20', '--silent', '--out-dir', folder],
  ],
  { output: 2 },
);
if (status !== 0) process.exit(status);
const { main } = await import(pathToFileURL(join(ROOT, folder, 'lab.js')).href);
process.exitCode = await main(ROOT, process.argv.slice(2));
