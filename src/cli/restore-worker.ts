import { ENDING_SIGNALS } from './ending-signals.js';
import { EXIT, plainFailure } from './failure.js';
import { type RestoreCommand, type RestoreMessage } from './restore-job.js';
import { RestoreRun } from './restore-run.js';

/*
 * The process that restores: apart from the one that talks to the user, because an access to a page that
 * is unavailable ends its process (SIGBUS), and the user has to be told why.
 */

let run: RestoreRun | undefined;

const tell = (message: RestoreMessage): void => void (process.connected && process.send!(message));

process.on('message', (command: RestoreCommand) => {
  if (command.kind === 'interrupt') return run?.interrupt();
  try {
    run = new RestoreRun(command.job, tell);
    void run.run().then(
      (result) => end({ kind: 'result', result }, EXIT.ok),
      (thrown: unknown) => end({ kind: 'failed', failure: plainFailure(thrown) }, EXIT.failed),
    );
  } catch (thrown) {
    end({ kind: 'failed', failure: plainFailure(thrown) }, EXIT.failed);
  }
});

function end(message: RestoreMessage, status: number): void {
  process.exitCode = status;
  // Once the message is out the channel closes and, nothing else being left, the process ends by itself.
  process.send!(message, () => process.disconnect());
}

// The process that watches is gone: there is nothing to restore for.
process.on('disconnect', () => {
  if (process.exitCode === undefined) process.exit(EXIT.failed);
});

// A terminal, and timeout(1), signal the whole group; when this process ends is for the other one to say.
for (const signal of ENDING_SIGNALS) process.on(signal, () => {});
