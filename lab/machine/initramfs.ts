import { spawn } from 'node:child_process';
import { createReadStream, createWriteStream, openSync, closeSync } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { once } from 'node:events';
import { LabFailure } from './failure.js';

/** Packs a folder as the kernel unpacks it: a cpio archive, not compressed, because unpacking is emulated. */
export async function writeArchive(folder: string, file: string, signal: AbortSignal): Promise<void> {
  const output = openSync(file, 'w');
  try {
    const child = spawn('sh', ['-c', 'find . | LC_ALL=C sort | cpio --quiet -o -H newc -R 0:0'], {
      cwd: folder,
      stdio: ['ignore', output, 'pipe'],
      signal,
      killSignal: 'SIGKILL',
    });
    let complaint = '';
    child.stderr!.on('data', (chunk: Buffer) => (complaint += chunk.toString()));
    const [status] = (await once(child, 'close')) as [number | null];
    if (status !== 0) throw new LabFailure(`cpio failed: ${complaint.trim() || `status ${status}`}`);
  } finally {
    closeSync(output);
  }
}

/** Archives one after another: the kernel unpacks each over those before. */
export async function joinArchives(
  files: readonly string[],
  target: string,
  signal: AbortSignal,
): Promise<void> {
  for (const [index, file] of files.entries())
    await pipeline(createReadStream(file), createWriteStream(target, { flags: index === 0 ? 'w' : 'a' }), {
      signal,
    });
}
