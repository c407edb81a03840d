import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { anyHistory, type Ending, type History } from './history.js';
import { MUTANTS, mutantOf } from './mutants.js';
import { HistoryFailure, Player, type PlayOptions } from './player.js';
import { type HistorySubject, SUBJECTS } from './subjects.js';

const LONG = process.env['DEMAND_PAGING_LONG'] === '1';
/** Of all subjects together about two minutes; in the long run hours. `DP_HISTORY_SECONDS` says otherwise. */
const SECONDS = Number(process.env['DP_HISTORY_SECONDS'] ?? (LONG ? 1500 : 15));
/** A failure prints both; given again, they play that history first. */
const SEED = process.env['DP_SEED'] === undefined ? undefined : Number(process.env['DP_SEED']);
const PATH = process.env['DP_PATH'];

const ENDINGS: readonly Ending[] = ['close-poison', 'close-zero', 'populate', 'resolver-dies'];
const DOZEN = 12;

/**
 * Plays histories until the time is over. Throws, with what plays it again, at the first that comes out
 * wrong.
 */
async function playFor(
  subject: HistorySubject,
  seconds: number,
  options: PlayOptions,
  most = Infinity,
): Promise<number> {
  const player = new Player(subject, options);
  const until = performance.now() + seconds * 1000;
  let played = 0;
  const property = fc.asyncProperty(anyHistory(subject.commands, ENDINGS), async (history: History) => {
    played++;
    await player.play(history);
  });
  let seed = SEED ?? Date.now() & 0x7fff_ffff;
  try {
    do {
      // What is shrunk on a real kernel need not fail again: the timeline of the first failure tells more.
      const details = await fc.check(property, {
        seed,
        numRuns: DOZEN,
        endOnFailure: true,
        ...(PATH !== undefined && { path: PATH }),
      });
      if (details.failed) throw told(details);
      seed++;
    } while (performance.now() < until && played < most);
  } finally {
    await player.stop();
  }
  return played;
}

function told({ seed, counterexamplePath, errorInstance, counterexample }: fc.RunDetails<[History]>): Error {
  const again = `DP_SEED=${seed} DP_PATH=${counterexamplePath ?? ''}`;
  const { rounds, ...settings } = counterexample![0];
  const error = new Error(
    `${errorInstance instanceof Error ? errorInstance.message : String(errorInstance)}\n` +
      `${JSON.stringify(settings)}, ${rounds.length} rounds; to play it again: ${again}`,
    { cause: errorInstance },
  );
  const { stack } = errorInstance instanceof Error ? errorInstance : {};
  if (!(errorInstance instanceof HistoryFailure) && stack !== undefined) error.stack = stack;
  return error;
}

describe('histories of commands and accesses', () => {
  test.for(SUBJECTS)(
    '$name: every history comes out as some order of its steps',
    { timeout: (SECONDS + 300) * 1000 },
    async (subject, context) => {
      if (subject.lack !== undefined) context.skip(subject.lack);
      const tally = new Map<string, number>();
      const played = await playFor(subject, SECONDS, { tally });
      const sum = [...tally].map(([what, times]) => `${what} ${times}`).join(', ');
      process.stdout.write(`${subject.name}: ${played} histories in ${SECONDS} s: ${sum}\n`);
      // Each command and each site that the subject has was tried.
      for (const kind of subject.commands) expect(tally.get(kind) ?? 0, kind).toBeGreaterThan(0);
    },
  );
});

describe('a backend that does one thing wrong', () => {
  test.for(MUTANTS)(
    '$subject: $name: some history shows it',
    { timeout: 300_000 },
    async (mutant, context) => {
      const subject = SUBJECTS.find(({ name }) => name === mutant.subject)!;
      if (subject.lack !== undefined) context.skip(subject.lack);
      const options = { around: mutantOf(mutant), hang_ms: 4000 };
      await expect(playFor(subject, 120, options, 300)).rejects.toThrow(
        / saw |nothing came|has page|waited for|no written event/,
      );
    },
  );
});
