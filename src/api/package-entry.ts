import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { pathToFileURL } from 'node:url';
import { Worker, type WorkerOptions } from 'node:worker_threads';
import { DemandPagingError } from './error.js';

/** The built file of an entry of this package, wherever the code that asks was bundled to: found by the package's own name. */
export const entryFile = (name: string): string =>
  createRequire(import.meta.url).resolve(`demand-paging/${name}`);

/**
 * Starts a thread that runs an entry of this package. A worker inherits the flags of its process, by the command line and
 * by NODE_OPTIONS, and should: they may say how a source's module is loaded. One of them, `--input-type`, says that no
 * file is run, and a worker of a file refuses to start; so the thread is given a script, which imports the file.
 * Blocks: nobody. What the entry throws arrives as the worker's `error`, whatever `--unhandled-rejections` says.
 * Errors: KERNEL where no thread is to be had; DataCloneError.
 */
export function startThread(name: string, options: Omit<WorkerOptions, 'eval'>): Worker {
  const url = pathToFileURL(entryFile(name)).href;
  const script = `import(${JSON.stringify(url)}).catch((error) => process.nextTick(() => { throw error; }));`;
  try {
    return new Worker(script, { ...options, eval: true });
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code !== 'ERR_WORKER_INIT_FAILED') throw cause;
    throw new DemandPagingError('KERNEL', `no thread can be had for ${name}`, {
      errno: constants.errno.EAGAIN,
      syscall: 'clone',
      hint: 'Raise the limit on threads: ulimit -u, pids.max of the control group, or kernel.threads-max',
      cause,
    });
  }
}
