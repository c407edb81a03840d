// @ts-check
// `npm run lab:docs`: puts the figures of lab/*/results into the documents that have a place for them.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { ROOT } from './entries.mjs';
import { ensureInstalled, program, requireNode, run } from './setup.mjs';

requireNode();
ensureInstalled();
const folder = join('.cache', 'programs', 'lab');
const bundle = ['--no-config', '--format', 'esm', '--target', 'node20', '--silent', '--out-dir', folder];
const args = [program('tsup'), 'lab/machine/document.ts', ...bundle];
const status = run('bundle', process.execPath, args, { output: 2 });
if (status !== 0) process.exit(status);
const { hasResults, readAllResults, withResults } = await import(
  pathToFileURL(join(ROOT, folder, 'document.js')).href
);
const results = await readAllResults(ROOT);
/** @type {string[]} */
const written = [];
for (const name of readdirSync(join(ROOT, 'docs'))) {
  const file = join(ROOT, 'docs', name);
  const text = name.endsWith('.md') ? readFileSync(file, 'utf8') : '';
  if (!hasResults(text)) continue;
  writeFileSync(file, withResults(text, results));
  written.push(file);
}
process.exit(run('format', process.execPath, [program('prettier'), '--write', ...written]));
