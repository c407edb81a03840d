import { spawn } from 'node:child_process';
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
import { type MemoryLayout } from '../../api/layout.js';
import { type CoverageAccessor } from './measure-coverage.js';

/** Maps the memory file at descriptor 3 for itself and prints one byte of it. */
const SCRIPT = `
const [module, length, offset] = process.argv.slice(1);
const { mapMemory, load8 } = await import(module);
const mapping = mapMemory({ kind: 'file', fd: 3, length: Number(length) });
process.stdout.write(String(load8(mapping.address + Number(offset))));
`;

/**
 * Another process with its own mapping of the first region's memory file: one process an access. It ends
 * by itself or is killed at the deadline. Precondition: that region has a file. Blocks: nobody.
 */
export function foreignMapping(layout: MemoryLayout, deadlineMs: number): CoverageAccessor {
  const [region] = layout.regions;
  const { fd, offset } = region!.file!;
  const module = pathToFileURL(createRequire(import.meta.url).resolve('demand-paging/linux')).href;
  const length = Number(offset) + Number(region!.length);
  return {
    access: ({ page }) =>
      new Promise((resolve, reject) => {
        const at = Number(offset) + (page - region!.firstPage) * region!.pageSize;
        const args = ['--input-type=module', '-e', SCRIPT, module, String(length), String(at)];
        const child = spawn(process.execPath, args, {
          stdio: ['ignore', 'pipe', 'ignore', fd],
          timeout: deadlineMs,
          killSignal: 'SIGKILL',
        });
        let output = '';
        child.stdio[1]!.on('data', (chunk: Buffer) => (output += String(chunk)));
        child.on('error', reject);
        child.on('close', (code, signal) => {
          if (code === 0) resolve({ ok: true, bytes: Uint8Array.of(Number(output)) });
          else reject(new Error(`the other process ended with ${signal ?? code}`));
        });
      }),
    stop: () => Promise.resolve(),
  };
}
