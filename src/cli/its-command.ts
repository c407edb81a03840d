import { type Command } from 'commander';
import { type CommandContext } from './context.js';
import { itsDumpCommand } from './its-dump-command.js';
import { itsPlanCommand } from './its-plan-command.js';
import { itsReplayCommand } from './its-replay-command.js';

/** `its`: what has to do with the arm64 GIC and ITS. */
export function itsCommand(program: Command, context: CommandContext): void {
  const its = program.command('its').description('arm64 GIC and ITS: replay vectors, decode images, plan');
  itsReplayCommand(its, context);
  itsDumpCommand(its, context);
  itsPlanCommand(its, context);
}
