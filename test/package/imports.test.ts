import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { isBuiltin } from 'node:module';
import { join, posix } from 'node:path';
import ts from 'typescript';
import { describe, expect, test } from 'vitest';
import { ROOT } from '../../scripts/entries.mjs';
import { INDEX_ONLY, LAYERS, NO_BUILTINS, SOLE_IMPORTERS } from '../../scripts/layers.mjs';

/** A source file below `src`, with slashes, and its text. */
interface Source {
  readonly path: string;
  readonly text: string;
}

const SOURCES: readonly Source[] = readdirSync(join(ROOT, 'src'), { recursive: true, encoding: 'utf8' })
  .map((path) => path.replaceAll('\\', '/'))
  .filter((path) => path.endsWith('.ts'))
  .map((path) => ({ path, text: readFileSync(join(ROOT, 'src', path), 'utf8') }));

/** The folder a file belongs to: a layer, with the backend's name for a backend; '' for src itself. */
function homeOf(path: string): string {
  const [folder = '', second = ''] = path.split('/');
  if (!path.includes('/')) return '';
  return folder === 'backends' ? `backends/${second}` : folder;
}

/** Why a file may not import what it imports; nothing if it may. */
function faults({ path, text }: Source): string[] {
  const specifiers = ts.preProcessFile(text, true, true).importedFiles.map(({ fileName }) => fileName);
  return specifiers.flatMap((specifier) => {
    const fault = specifier.startsWith('.') ? faultOfPath(path, specifier) : faultOfPackage(path, specifier);
    return fault === undefined ? [] : [`${path} imports ${specifier}: ${fault}`];
  });
}

function faultOfPath(path: string, specifier: string): string | undefined {
  const target = posix.join(posix.dirname(path), specifier);
  if (target.startsWith('../')) return 'leaves src';
  const from = homeOf(path);
  const to = homeOf(target);
  if (from === to) return undefined;
  if (from === '') return to === 'api' ? undefined : 'the root entry exports src/api only';
  const layer = from.split('/')[0] as string;
  const allowed = LAYERS[layer];
  if (allowed === undefined) return `${layer} is in no row of scripts/layers.mjs`;
  if (!allowed.includes(to.split('/')[0] as string))
    return `${layer} may import ${allowed.join(', ') || 'nothing'}`;
  if (INDEX_ONLY.includes(layer) && posix.basename(target) !== 'index.js') return 'not through its index';
  return undefined;
}

function faultOfPackage(path: string, specifier: string): string | undefined {
  if (specifier === 'demand-paging' || specifier.startsWith('demand-paging/')) return 'the library by name';
  if (isBuiltin(specifier)) {
    if (!specifier.startsWith('node:')) return 'a builtin without node:';
    return NO_BUILTINS.includes(homeOf(path)) ? 'no builtins in this folder' : undefined;
  }
  const owner = Object.entries(SOLE_IMPORTERS).find(
    ([name]) => specifier === name || specifier.startsWith(`${name}/`),
  );
  return owner && !path.startsWith(owner[1]) ? `only src/${owner[1]} may` : undefined;
}

describe('imports point one way', () => {
  test('in every source file', () => {
    expect(SOURCES.length).toBeGreaterThan(3);
    expect(SOURCES.flatMap(faults)).toEqual([]);
  });

  test.each([
    ['api/pager.ts', '../linux/index.js'],
    ['api/pager.ts', '../index.js'],
    ['api/pager.ts', 'koffi'],
    ['api/pager.ts', 'typed-emitter'],
    ['arm64/its.ts', '../api/error.js'],
    ['arm64/its.ts', 'node:fs'],
    ['arm64/its.ts', '../backends/memory/index.js'],
    ['backends/memory/index.ts', '../userfaultfd/index.js'],
    ['backends/memory/index.ts', '../../arm64/index.js'],
    ['conformance/index.ts', '../linux/index.js'],
    ['cli/index.ts', 'koffi/indirect'],
    ['cli/index.ts', '../../test/support/build.js'],
    ['guests/index.ts', '../cli/index.js'],
    ['guests/index.ts', 'demand-paging/linux'],
    ['linux/file.ts', 'fs'],
    ['unlisted/index.ts', '../api/index.js'],
    ['index.ts', './linux/index.js'],
  ])('a fault: %s imports %s', (path, specifier) => {
    const forms = [
      `import { x } from '${specifier}';`,
      `import type { X } from '${specifier}';`,
      `export * from '${specifier}';`,
      `const x = await import('${specifier}');`,
      `const x = require('${specifier}');`,
    ];
    for (const text of forms) expect(faults({ path, text }), text).toHaveLength(1);
  });

  test.each([
    ['index.ts', './api/index.js'],
    ['api/events.ts', 'typed-emitter'],
    ['arm64/its.ts', '../api/index.js'],
    ['arm64/its.ts', 'ts-pattern'],
    ['backends/userfaultfd/index.ts', '../../linux/index.js'],
    ['cli/index.ts', '../guests/index.js'],
    ['linux/ffi.ts', 'koffi'],
    ['linux/ffi.ts', 'node:module'],
  ])('no fault: %s imports %s', (path, specifier) => {
    expect(faults({ path, text: `import { x } from '${specifier}';` })).toEqual([]);
  });
});

test('the native library is named in src/linux only, in whatever way it is loaded', () => {
  const naming = SOURCES.filter(({ text }) => /(['"`])koffi(\/[^'"`]*)?\1/.test(text));
  expect(naming.map(({ path }) => path).filter((path) => !path.startsWith('linux/'))).toEqual([]);
});

test('no module looks for a neighbour by its own URL, which bundling changes', () => {
  const looking = SOURCES.filter(({ text }) => /new URL\(\s*['"`]\.[^)]*import\.meta\.url/.test(text));
  expect(looking.map(({ path }) => path)).toEqual([]);
});

test('every folder below src has its row in scripts/layers.mjs', () => {
  const folders = readdirSync(join(ROOT, 'src'), { withFileTypes: true }).filter((entry) =>
    entry.isDirectory(),
  );
  expect(folders.map(({ name }) => name).filter((name) => !(name in LAYERS))).toEqual([]);
  expect(existsSync(join(ROOT, 'src', 'api', 'index.ts'))).toBe(true);
});
