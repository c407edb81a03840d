import { createHash } from 'node:crypto';
import { createReadStream, existsSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { pipeline } from 'node:stream/promises';

const MANIFEST = 'complete.json';

/** What a complete folder of the cache says about itself. */
export interface Manifest<T> {
  /** What it was made from: a folder of another recipe is made anew. */
  readonly recipe: string;
  readonly facts: T;
  /** SHA-256 of each file. */
  readonly files: Readonly<Record<string, string>>;
}

export async function digestOf(file: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(file), hash);
  return hash.digest('hex');
}

/** The facts of a folder that is complete, of this recipe, and whose files are what they were. */
export async function readCached<T>(folder: string, recipe: string): Promise<T | undefined> {
  const file = join(folder, MANIFEST);
  if (!existsSync(file)) return undefined;
  try {
    const manifest = JSON.parse(await readFile(file, 'utf8')) as Manifest<T>;
    if (manifest.recipe !== recipe) return undefined;
    for (const [name, digest] of Object.entries(manifest.files))
      if ((await digestOf(join(folder, name))) !== digest) return undefined;
    return manifest.facts;
  } catch {
    // Damaged: as good as missing.
    return undefined;
  }
}

/**
 * A folder of the cache, made if it is not there. It is made under another name and takes its own only
 * when it is complete, so that no process finds half of one, however this ends.
 */
export async function cached<T>(
  folder: string,
  recipe: string,
  make: (folder: string) => Promise<T>,
): Promise<{ facts: T; made: boolean }> {
  const present = await readCached<T>(folder, recipe);
  if (present !== undefined) return { facts: present, made: false };
  await mkdir(dirname(folder), { recursive: true });
  const partial = await mkdtemp(`${folder}.partial-`);
  try {
    const facts = await make(partial);
    const files: Record<string, string> = {};
    for (const entry of await readdir(partial, { withFileTypes: true }))
      if (entry.isFile()) files[entry.name] = await digestOf(join(partial, entry.name));
    await writeFile(join(partial, MANIFEST), JSON.stringify({ recipe, facts, files }));
    await replaceFolder(partial, folder);
    return { facts, made: true };
  } finally {
    await rm(partial, { recursive: true, force: true });
  }
}

/** Puts a complete folder in the place of another. */
async function replaceFolder(fresh: string, folder: string): Promise<void> {
  if (existsSync(folder)) {
    // Renamed first, then removed: a process that has its files open keeps them.
    const old = await mkdtemp(join(dirname(folder), `${basename(folder)}.partial-`));
    await rename(folder, join(old, 'old'));
    await rename(fresh, folder);
    await rm(old, { recursive: true, force: true });
    return;
  }
  await rename(fresh, folder);
}

/** Removes what runs that were killed left half-made. */
export async function sweepPartial(parent: string, olderThan_ms: number, now: number): Promise<void> {
  if (!existsSync(parent)) return;
  const { statSync } = await import('node:fs');
  for (const name of await readdir(parent)) {
    if (!name.includes('.partial-')) continue;
    const path = join(parent, name);
    if (now - statSync(path).mtimeMs > olderThan_ms) await rm(path, { recursive: true, force: true });
  }
}
