import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { unavailable } from './failure.js';

interface LockEntry {
  readonly optional?: boolean;
  readonly dependencies?: Readonly<Record<string, string>>;
  readonly optionalDependencies?: Readonly<Record<string, string>>;
  readonly peerDependencies?: Readonly<Record<string, string>>;
}

/** Where a package finds another: in its own folder, or in one further out. */
function resolvePath(
  lock: Readonly<Record<string, LockEntry>>,
  from: string,
  name: string,
): string | undefined {
  for (let place = from; ;) {
    const path = join(place, 'node_modules', name);
    if (lock[path] !== undefined) return path;
    if (place === '') return undefined;
    place = place.slice(0, Math.max(0, place.lastIndexOf('node_modules') - 1));
  }
}

/**
 * Folders of installed packages that the given ones need at run time, themselves included, as the lock
 * lists them. Errors: LabFailure when one is not installed.
 */
export async function lockedPackages(root: string, names: readonly string[]): Promise<string[]> {
  const { packages } = JSON.parse(await readFile(join(root, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, LockEntry>;
  };
  const found = new Set<string>();
  const visit = (path: string | undefined): void => {
    if (path === undefined || found.has(path)) return;
    const entry = packages[path]!;
    if (!existsSync(join(root, path))) {
      // Of packages for other platforms, the lock knows and the disk does not.
      if (entry.optional) return;
      throw unavailable(`${path} is not installed`, 'npm ci');
    }
    found.add(path);
    const needed = { ...entry.dependencies, ...entry.optionalDependencies, ...entry.peerDependencies };
    for (const name of Object.keys(needed)) visit(resolvePath(packages, path, name));
  };
  for (const name of names) visit(resolvePath(packages, '', name));
  return [...found];
}
