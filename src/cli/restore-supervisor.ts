import { type ChildProcess, fork } from 'node:child_process';
import { entryFile } from '../api/package-entry.js';
import { type PlainFailure, stripHint } from './failure.js';
import {
  type RestoreCommand,
  type RestoreJob,
  type RestoreMessage,
  type RestoreResult,
} from './restore-job.js';

/** How a restore ended. */
export type RestoreOutcome =
  | { readonly kind: 'result'; readonly result: RestoreResult }
  | { readonly kind: 'failed'; readonly failure: PlainFailure }
  /** `killed`: it did not end by itself in time. */
  | { readonly kind: 'interrupted'; readonly killed: boolean };

/** How long the process may take to end by itself, once it has nothing to do any more. */
const GRACE_MS = 3000;

/**
 * Runs a job in a process of its own and resolves when that is gone, however it went. Aborting asks it to
 * end, and kills it when it does not. `image`: the descriptor of an image without a name, which that process inherits.
 */
export async function superviseRestore(
  job: RestoreJob,
  image: number | undefined,
  hear: (message: RestoreMessage) => void,
  abort: AbortSignal,
): Promise<RestoreOutcome> {
  const child = fork(entryFile('cli/restore-worker'), {
    serialization: 'advanced',
    // Its flags are not for it: a debugger's port, for one, can be had only once.
    execArgv: [],
    // The image comes to be INHERITED_IMAGE.
    stdio: ['ignore', 'ignore', 'inherit', 'ipc', ...(image === undefined ? [] : [image])],
  });
  const send = (command: RestoreCommand): void => void (child.connected && child.send(command));
  let last: Extract<RestoreMessage, { kind: 'result' | 'failed' }> | undefined;
  let trouble: PlainFailure | undefined;
  let grace: NodeJS.Timeout | undefined;
  const hurry = (): void => void (grace ??= setTimeout(() => child.kill('SIGKILL'), GRACE_MS));
  child.on('message', (message: RestoreMessage) => {
    if (message.kind === 'trouble') trouble = message.failure;
    if (message.kind === 'result' || message.kind === 'failed') {
      last = message;
      hurry();
    }
    hear(message);
  });
  const interrupt = (): void => {
    send({ kind: 'interrupt' });
    hurry();
  };
  abort.addEventListener('abort', interrupt, { once: true });
  if (abort.aborted) interrupt();
  send({ kind: 'start', job });
  const end = await ended(child);
  clearTimeout(grace);
  abort.removeEventListener('abort', interrupt);
  if (abort.aborted) return { kind: 'interrupted', killed: end === 'SIGKILL' };
  if (!last) return { kind: 'failed', failure: deathOf(end, trouble) };
  if (last.kind === 'result' && end !== 0) {
    const message = `everything was restored, but the process that did it ended with ${end}`;
    return { kind: 'failed', failure: { code: 'HANDLER_DIED', message, hint: undefined } };
  }
  // What went wrong first says more than what failed of it.
  return last.kind === 'failed' ? { kind: 'failed', failure: trouble ?? last.failure } : last;
}

function ended(child: ChildProcess): Promise<number | string> {
  return new Promise((resolve) => {
    child.on('error', (error) => resolve(error.message));
    child.on('exit', (code, signal) => resolve(signal ?? code ?? 'nothing'));
  });
}

/** A process that ended without a word. Where pages could not be had before, that is what ended it. */
function deathOf(end: number | string, trouble: PlainFailure | undefined): PlainFailure {
  if (end === 'SIGBUS' && trouble) {
    const hint = `${trouble.hint === undefined ? '' : `${trouble.hint} `}The missing pages were poisoned, and an accessor that waited for one ended its process with SIGBUS, as a guest's memory does a VMM`;
    return { ...trouble, message: stripHint(trouble), hint };
  }
  const message = `the restoring process ended with ${end}`;
  return trouble ?? { code: 'HANDLER_DIED', message, hint: undefined };
}
