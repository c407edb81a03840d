import { readFileSync } from 'node:fs';
import { copyFile, mkdir, readdir, rename } from 'node:fs/promises';
import { basename, join } from 'node:path';
import { command } from './command.js';
import { LabFailure } from './failure.js';

/** A module's name: its file's, with the one spelling the kernel uses. */
const nameOf = (file: string): string =>
  basename(file)
    .replace(/\.ko(\.\w+)?$/, '')
    .replaceAll('-', '_');

/** What a module needs, from the `depends=` of its `.modinfo`. */
function dependenciesOf(file: string): string[] {
  const match = /(?:^|\0)depends=([\w,-]*)\0/.exec(readFileSync(file, 'latin1'));
  return (match?.[1] ?? '')
    .split(',')
    .filter((name) => name !== '')
    .map(nameOf);
}

/**
 * Copies modules and what they need, decompressed, from an unpacked kernel.
 * @returns their files, in the order in which they must be loaded; built-in ones are left out
 */
export async function collectModules(
  tree: string,
  wanted: readonly string[],
  into: string,
  signal: AbortSignal,
): Promise<string[]> {
  const files = await readdir(tree, { recursive: true });
  const loadable = new Map(
    files.filter((file) => /\.ko(\.\w+)?$/.test(file)).map((file) => [nameOf(file), file]),
  );
  const builtin = new Set(
    readFileSync(join(tree, 'modules.builtin'), 'utf8').split('\n').filter(Boolean).map(nameOf),
  );
  await mkdir(into, { recursive: true });
  const order: string[] = [];
  const visit = async (name: string): Promise<void> => {
    const file = `${name}.ko`;
    if (builtin.has(name) || order.includes(file)) return;
    const source = loadable.get(name);
    if (source === undefined) throw new LabFailure(`this kernel has no module ${name}, nor is it built in`);
    await copyModule(join(tree, source), join(into, file), signal);
    for (const needed of dependenciesOf(join(into, file))) await visit(needed);
    order.push(file);
  };
  for (const name of wanted) await visit(name);
  return order;
}

async function copyModule(source: string, target: string, signal: AbortSignal): Promise<void> {
  if (!source.endsWith('.xz')) return copyFile(source, target);
  const compressed = `${target}.xz`;
  await copyFile(source, compressed);
  await command('xz', ['--decompress', '--force', compressed], { signal });
  if (compressed.slice(0, -3) !== target) await rename(compressed.slice(0, -3), target);
}
