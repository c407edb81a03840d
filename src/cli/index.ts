#!/usr/bin/env node
import { createRequire } from 'node:module';
import { Command, CommanderError } from 'commander';
import { type CommandContext } from './context.js';
import { describeFailure, EXIT } from './failure.js';
import { conformanceCommand } from './conformance-command.js';
import { doctorCommand } from './doctor-command.js';
import { itsCommand } from './its-command.js';
import { restoreCommand } from './restore-command.js';
import { processTerminal } from './terminal.js';

const { version } = createRequire(import.meta.url)('demand-paging/package.json') as { version: string };

const context: CommandContext = {
  terminal: processTerminal(),
  exit: (status) => void (process.exitCode = status),
};

const program = new Command('demand-paging')
  .description('Demand paging of virtual machines: restore a guest on demand, see what this host can do')
  .version(version)
  .showHelpAfterError('(--help shows what there is)')
  .exitOverride();

restoreCommand(program, context);
doctorCommand(program, context);
conformanceCommand(program, context);
itsCommand(program, context);

// A reader that goes away (`| head`) is no failure of ours, and there is nobody left to tell.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code === 'EPIPE') process.exit(EXIT.ok);
  throw error;
});

try {
  await program.parseAsync();
} catch (thrown) {
  if (thrown instanceof CommanderError) {
    // Commander has written its message; asking for help or the version is no mistake.
    process.exitCode = thrown.exitCode === 0 ? EXIT.ok : EXIT.usage;
  } else {
    const { lines, status } = describeFailure(thrown);
    for (const line of lines) context.terminal.err(line);
    process.exitCode = status;
  }
}
