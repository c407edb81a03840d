#!/usr/bin/env node
import { createRequire } from 'node:module';
import { Command, CommanderError } from 'commander';
import { type CommandContext } from './context.js';
import { describeFailure, EXIT, failureOfCall } from './failure.js';
import { processTerminal } from './terminal.js';

type Register = (program: Command, context: CommandContext) => void;

/** Each command with what it needs, loaded when it is asked for. */
const COMMANDS: Readonly<Record<string, () => Promise<Register>>> = {
  restore: async () => (await import('./restore-command.js')).restoreCommand,
  doctor: async () => (await import('./doctor-command.js')).doctorCommand,
  its: async () => (await import('./its-command.js')).itsCommand,
  scenario: async () => (await import('./scenario-command.js')).scenarioCommand,
  uapi: async () => (await import('./uapi-command.js')).uapiCommand,
  conformance: async () => (await import('./conformance-command.js')).conformanceCommand,
};

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

// A reader that goes away (`| head`, a terminal that is closed) is no failure, and there is no one left to tell. What
// cannot be written for another reason (a full disk) is one.
const GONE = ['EPIPE', 'EIO'];
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (GONE.includes(error.code ?? '')) process.exit(EXIT.ok);
  fail(failureOfCall(error, 'standard output cannot be written'));
  process.exit(EXIT.failed);
});
process.stderr.on('error', () => {}); // the status says it, too

try {
  const name = process.argv[2] ?? '';
  const asked = Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined;
  // The help and a mistake in the name want all of them.
  for (const load of asked ? [asked] : Object.values(COMMANDS)) (await load())(program, context);
  await program.parseAsync();
} catch (thrown) {
  if (thrown instanceof CommanderError) {
    // Commander has written its message; asking for help or the version is no mistake.
    process.exitCode = thrown.exitCode === 0 ? EXIT.ok : EXIT.usage;
  } else fail(thrown);
}

function fail(thrown: unknown): void {
  const { lines, status } = describeFailure(thrown);
  for (const line of lines) context.terminal.err(line);
  process.exitCode = status;
}
