// @ts-check
// The public entry points, found by convention so that a new folder becomes public by existing:
// the bundler, the exports map, the documentation and the package tests all read this one list.
import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('..', import.meta.url));

/** Folders of `src` with an entry of their own; `src/api` is what the root entry exports. */
const PUBLIC_FOLDERS = [
  'accessors',
  'arm64',
  'conformance',
  'guests',
  'handler',
  'kvm',
  'linux',
  'prototypes',
  'scenarios',
  'sources',
];

/** @typedef {{ name: string, source: string, kind: 'library' | 'worker' | 'cli' }} Entry */

/**
 * Every entry whose source exists, sorted by name. `name` is the path below `dist` without extension.
 * @param {string} root the repository or a copy of it
 * @returns {Entry[]}
 */
export function entries(root = ROOT) {
  /** @type {Entry[]} */
  const wanted = [
    { name: 'index', source: 'src/index.ts', kind: 'library' },
    { name: 'cli', source: 'src/cli/index.ts', kind: 'cli' },
    ...PUBLIC_FOLDERS.map((name) => libraryEntry(name)),
    ...foldersOf(root, 'src/backends').map((folder) => libraryEntry(`backends/${folder}`)),
    ...workersOf(root),
  ];
  return wanted
    .filter(({ source }) => existsSync(join(root, source)))
    .sort((a, b) => (a.name < b.name ? -1 : 1));
}

/** @param {Entry} entry the specifier's tail in the exports map */
export function subpath(entry) {
  return entry.name === 'index' ? '.' : `./${entry.name}`;
}

/**
 * The `exports` and `bin` fields that belong to a list of entries.
 * @param {Entry[]} list
 */
export function packageFields(list) {
  const exportsMap = Object.fromEntries(
    list
      .filter(({ kind }) => kind !== 'cli')
      .map((entry) => [
        subpath(entry),
        { types: `./dist/${entry.name}.d.ts`, default: `./dist/${entry.name}.js` },
      ]),
  );
  const { '.': main, ...others } = exportsMap;
  const bin = list.some(({ kind }) => kind === 'cli') ? { 'demand-paging': 'dist/cli.js' } : undefined;
  return { exports: { '.': main, ...others, './package.json': './package.json' }, bin };
}

/** @param {string} name @returns {Entry} */
function libraryEntry(name) {
  return { name, source: `src/${name}/index.ts`, kind: 'library' };
}

/**
 * Worker files must be loadable by name from any chunk of the bundle, so each is an entry.
 * @param {string} root
 * @returns {Entry[]}
 */
function workersOf(root) {
  return readdirSync(join(root, 'src'), { recursive: true, encoding: 'utf8' })
    .map((file) => file.replaceAll('\\', '/'))
    .filter((file) => file.endsWith('-worker.ts'))
    .map((file) => ({ name: file.slice(0, -'.ts'.length), source: `src/${file}`, kind: 'worker' }));
}

/** @param {string} root @param {string} path */
function foldersOf(root, path) {
  const folder = join(root, path);
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isDirectory())
    .map(({ name }) => name);
}
