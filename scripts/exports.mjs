// @ts-check
// The exports map and the bin field follow from the entries that exist; they are kept in package.json
// because npm and node read them there. Every build brings them in line; `npm run exports` does only that.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { entries, packageFields, ROOT } from './entries.mjs';

const file = join(ROOT, 'package.json');
const before = readFileSync(file, 'utf8');
const manifest = JSON.parse(before);
const { exports, bin } = packageFields(entries());
manifest.exports = exports;
if (bin) manifest.bin = bin;
else delete manifest.bin;
const after = JSON.stringify(manifest, null, 2) + '\n';
if (after !== before) {
  writeFileSync(file, after);
  process.stdout.write('package.json: entries changed\n');
}
