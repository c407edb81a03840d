import { spawn } from 'node:child_process';
import { type MemoryLayout } from '../../api/layout.js';
import { entryFile } from '../../api/package-entry.js';
import { type CoverageAccessor } from './measure-coverage.js';

/**
 * Another process with its own mapping of the first region's memory file: one process an access. It ends
 * by itself or is killed at the deadline. Precondition: that region has a file. Blocks: nobody.
 */
export function foreignMapping(layout: MemoryLayout, deadline_ms: number): CoverageAccessor {
  const [region] = layout.regions;
  const { fd, offset } = region!.file!;
  const program = entryFile('backends/userfaultfd/foreign-mapping-worker');
  const mapped = Number(offset) + Number(region!.length);
  return {
    access: ({ page, offset: into = 0, length, bytes }) =>
      new Promise((resolve, reject) => {
        const at = Number(offset) + (page - region!.firstPage) * region!.pageSize + into;
        const count = bytes?.length ?? length ?? 1;
        const given = bytes ? Buffer.from(bytes).toString('hex') : '';
        const args = [program, String(mapped), String(at), String(count), given];
        const child = spawn(process.execPath, args, {
          // Options of this process, a debugger's port for one, are not for the other.
          env: { ...process.env, NODE_OPTIONS: '' },
          stdio: ['ignore', 'pipe', 'ignore', fd],
          timeout: deadline_ms,
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
