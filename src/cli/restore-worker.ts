import { rmSync } from 'node:fs';
import { DemandPagingError } from '../api/index.js';
import { EXIT, type PlainFailure } from './failure.js';
import { type RestoreCommand, type RestoreMessage } from './restore-job.js';
import { RestoreRun } from './restore-run.js';

/*
 * The process that restores: apart from the one that talks to the user, because an access to a page that
 * cannot be had ends the process it is made in (SIGBUS), and the user is to hear why.
 */

let run: RestoreRun | undefined;
let temporary: string | undefined;

const tell = (message: RestoreMessage): void => void (process.connected && process.send!(message));

function plain(thrown: unknown): PlainFailure {
  if (thrown instanceof DemandPagingError)
    return { code: thrown.code, message: thrown.message, hint: thrown.hint };
  const misuse = thrown instanceof RangeError || thrown instanceof TypeError;
  const message =
    thrown instanceof Error ? ((misuse ? undefined : thrown.stack) ?? thrown.message) : String(thrown);
  return { code: undefined, message, hint: undefined };
}

process.on('message', (command: RestoreCommand) => {
  if (command.kind === 'interrupt') return run?.interrupt();
  temporary = command.job.temporary;
  try {
    run = new RestoreRun(command.job, tell);
    void run.run().then(
      (result) => end({ kind: 'result', result }, EXIT.ok),
      (thrown: unknown) => end({ kind: 'failed', failure: plain(thrown) }, EXIT.failed),
    );
  } catch (thrown) {
    end({ kind: 'failed', failure: plain(thrown) }, EXIT.failed);
  }
});

function end(message: RestoreMessage, status: number): void {
  process.exitCode = status;
  // Once the message is out the channel closes and, nothing else being left, the process ends by itself.
  process.send!(message, () => process.disconnect());
}

// Whoever watches is gone: nobody is left to clean up, and nobody to restore for.
process.on('disconnect', () => {
  if (process.exitCode !== undefined) return;
  if (temporary !== undefined) rmSync(temporary, { recursive: true, force: true });
  process.exit(EXIT.failed);
});

// Ctrl-C reaches the whole group; when this process ends is for the other one to say.
process.on('SIGINT', () => {});
