import { copyFile, mkdir } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { command } from './command.js';

/** Copies the shared libraries of this machine that programs are linked with to where these look for them. */
export async function copyHostLibraries(
  programs: readonly string[],
  image: string,
  signal: AbortSignal,
): Promise<void> {
  if (programs.length === 0) return;
  const libraries = await command('ldd', programs, { signal });
  for (const file of new Set([...libraries.matchAll(/(\/\S+) \(0x/g)].map(([, file]) => file!))) {
    await mkdir(dirname(join(image, file)), { recursive: true });
    await copyFile(file, join(image, file));
  }
}
