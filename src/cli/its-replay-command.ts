import { type Command } from 'commander';
import { type ReplayResult, replayVector } from '../arm64/index.js';
import { EXIT } from './failure.js';
import { type CommandContext } from './context.js';
import { readVectors } from './vector-file.js';

/** `its replay`: replays recorded vectors on the software GIC and ITS. */
export function itsReplayCommand(its: Command, context: CommandContext): void {
  its
    .command('replay')
    .description('replay recorded vectors on the software GIC and ITS, as KVM behaves')
    .argument('<vectors.jsonl...>', 'files with one vector a line')
    .option('--json', 'one JSON document on standard output')
    .action((files: string[], { json = false }: { json?: boolean }) => {
      const { terminal } = context;
      // Every file is read before the first is replayed: a malformed one fails the command as a whole.
      const vectors = files.flatMap((file) => readVectors(file).map((vector) => ({ file, vector })));
      const results: (ReplayResult & { file: string })[] = [];
      for (const { file, vector } of vectors) {
        const result = replayVector(vector);
        if (!json) terminal.out(replayLine(result));
        results.push({ file, ...result });
      }
      const failed = results.filter(({ kind }) => kind !== 'ok').length;
      const passed = results.length - failed;
      if (json) terminal.document(JSON.stringify({ passed, failed, results }));
      else terminal.out(`${passed} passed, ${failed} failed`);
      context.exit(failed === 0 ? EXIT.ok : EXIT.failed);
    });
}

/** `A-000 ok`, or the vector's id and where it parts from the kernel first. */
export function replayLine(result: ReplayResult): string {
  if (result.kind === 'ok') return `${result.id} ok`;
  const { step, op, what, expected, actual } = result.first;
  return `${result.id} step ${step} (${op}): ${what} is ${actual}, expected ${expected}`;
}
