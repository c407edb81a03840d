import { createRequire } from 'node:module';
import { constants } from 'node:os';
import { pathToFileURL } from 'node:url';
import { Worker, type WorkerOptions } from 'node:worker_threads';
import { DemandPagingError, failedCallOf } from './error.js';

/**
 * The built file of an entry of this package, found by the package's own name wherever the caller was bundled
 * to.
 */
export const entryFile = (name: string): string =>
  createRequire(import.meta.url).resolve(`demand-paging/${name}`);

/**
 * Starts a thread that runs an entry of this package. A worker inherits the flags of its process, by the
 * command line and by NODE_OPTIONS, and should: they may say how a source's module is loaded. One of them,
 * `--input-type`, says that no file is run, and a worker of a file refuses to start; so the thread is given a
 * script, which imports the file. Blocks: never. What the entry throws arrives as the worker's `error`,
 * whatever `--unhandled-rejections` says. Errors: KERNEL where no thread is available; DataCloneError.
 */
export function startThread(name: string, options: Omit<WorkerOptions, 'eval'>): Worker {
  const url = pathToFileURL(entryFile(name)).href;
  const script = `import(${JSON.stringify(url)}).catch((error) => process.nextTick(() => { throw error; }));`;
  try {
    return new Worker(script, { ...options, eval: true });
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code !== 'ERR_WORKER_INIT_FAILED') throw cause;
    throw noThread(`no thread is available for ${name}`, constants.errno.EAGAIN, cause);
  }
}

/**
 * The error for a thread that has ended. Where its event loop could not be made, which Node reports by the
 * thread's `error`, it names the system call that was refused.
 */
export function threadEnded(message: string, cause: unknown): DemandPagingError {
  const refused = /^Worker initialization failure: (E[A-Z0-9]+)$/.exec(
    String((cause as Error | undefined)?.message),
  );
  if (!refused) return new DemandPagingError('HANDLER_DIED', message, { ...failedCallOf(cause), cause });
  return new DemandPagingError('KERNEL', `${message}: it could have no event loop`, {
    errno: (constants.errno as Record<string, number>)[refused[1]!],
    syscall: 'epoll_create1, eventfd or pipe2',
    hint: 'Raise the limit on open files (ulimit -n), or allow these calls',
    cause,
  });
}

/** The error for a thread that the system does not give; `errno` is positive. */
export const noThread = (message: string, errno: number, cause?: unknown): DemandPagingError =>
  new DemandPagingError('KERNEL', message, {
    errno,
    syscall: 'clone',
    hint: 'Raise the limit on threads (ulimit -u, pids.max of the control group, kernel.threads-max) or on memory (ulimit -v)',
    cause,
  });
