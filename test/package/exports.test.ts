import { existsSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, test } from 'vitest';
import { ROOT, entries, packageFields } from '../../scripts/entries.mjs';
import { Declarations, libraryEntries, specifier } from './export-list.js';

const manifest = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as {
  exports: Record<string, string | { types: string; default: string }>;
  bin?: Record<string, string>;
};

test('package.json names every entry that exists', () => {
  const wanted = packageFields(entries());
  expect(manifest.exports).toEqual(wanted.exports);
  expect(manifest.bin).toEqual(wanted.bin);
});

test('every file that the exports map names was built, types named first', () => {
  for (const target of Object.values(manifest.exports)) {
    const files = typeof target === 'string' ? [target] : Object.values(target);
    for (const file of files) expect(existsSync(join(ROOT, file)), file).toBe(true);
    if (typeof target !== 'string') expect(Object.keys(target)[0]).toBe('types');
  }
});

test('a module of the package finds every entry by name, as it does to start a worker', () => {
  const { resolve } = createRequire(join(ROOT, 'dist', 'index.js'));
  for (const entry of entries().filter(({ kind }) => kind !== 'cli')) {
    expect(resolve(specifier(entry))).toBe(join(ROOT, 'dist', `${entry.name}.js`));
  }
});

test('the program starts with node', () => {
  for (const file of Object.values(manifest.bin ?? {})) {
    expect(readFileSync(join(ROOT, file), 'utf8').split('\n')[0]).toBe('#!/usr/bin/env node');
  }
});

describe('the export list of an entry is a decision, `npx vitest run test/package -u` records a new one', () => {
  const declarations = new Declarations();

  test.each(libraryEntries())('$name', async (entry) => {
    const list = declarations.exportsOf(entry);
    const values = list.filter(({ kind }) => kind === 'value').map(({ name }) => name);
    const runtime = (await import(pathToFileURL(join(ROOT, 'dist', `${entry.name}.js`)).href)) as object;
    expect(values, 'declared and built names differ').toEqual(Object.keys(runtime).sort());
    const text = list.map(({ kind, name }) => `${kind} ${name}\n`).join('');
    await expect(text).toMatchFileSnapshot(`__snapshots__/${entry.name.replaceAll('/', '.')}.txt`);
  });
});
