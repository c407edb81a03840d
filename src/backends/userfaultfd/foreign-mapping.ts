import { spawn } from 'node:child_process';
import { pathToFileURL } from 'node:url';
import { type MemoryLayout } from '../../api/layout.js';
import { entryFile } from '../../api/package-entry.js';
import { type CoverageAccessor } from './measure-coverage.js';

/** Maps the memory file at descriptor 3 for itself, writes there what it was given, and says what it finds; all in hexadecimal. */
const SCRIPT = `
const [module, mapped, offset, count, given] = process.argv.slice(1);
const { mapMemory } = await import(module);
const mapping = mapMemory({ kind: 'file', fd: 3, length: Number(mapped) });
const bytes = mapping.bytes(Number(offset), Number(count));
if (given) bytes.set(Buffer.from(given, 'hex'));
process.stdout.write(Buffer.from(bytes).toString('hex'));
`;

/**
 * Another process with its own mapping of the first region's memory file: one process an access. It ends
 * by itself or is killed at the deadline. Precondition: that region has a file. Blocks: nobody.
 */
export function foreignMapping(layout: MemoryLayout, deadlineMs: number): CoverageAccessor {
  const [region] = layout.regions;
  const { fd, offset } = region!.file!;
  const module = pathToFileURL(entryFile('linux')).href;
  const mapped = Number(offset) + Number(region!.length);
  return {
    access: ({ page, offset: into = 0, length, bytes }) =>
      new Promise((resolve, reject) => {
        const at = Number(offset) + (page - region!.firstPage) * region!.pageSize + into;
        const count = bytes?.length ?? length ?? 1;
        const given = bytes ? Buffer.from(bytes).toString('hex') : '';
        const args = [module, String(mapped), String(at), String(count), given];
        const child = spawn(process.execPath, ['--input-type=module', '-e', SCRIPT, ...args], {
          stdio: ['ignore', 'pipe', 'ignore', fd],
          timeout: deadlineMs,
          killSignal: 'SIGKILL',
        });
        let output = '';
        child.stdio[1]!.on('data', (chunk: Buffer) => (output += String(chunk)));
        child.on('error', reject);
        child.on('close', (code, signal) => {
          if (code === 0) resolve({ ok: true, bytes: Buffer.from(output, 'hex') });
          else reject(new Error(`the other process ended with ${signal ?? code}`));
        });
      }),
    stop: () => Promise.resolve(),
  };
}
