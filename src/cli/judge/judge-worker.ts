import { ftruncateSync, writeSync } from 'node:fs';
import { DemandPagingError } from '../../api/index.js';
import { type CheckOptions } from '../../conformance/index.js';
import { type JudgedUapi, playScenario, SCENARIOS } from '../../scenarios/index.js';
import { type PlainFailure } from '../failure.js';
import { type Candidate } from './candidate.js';
import { CellJudge, textOf } from './cell-judge.js';
import { IDLE_STATUS, type JudgeJob, type JudgeMessage } from './judge-job.js';
import { loadCandidate } from './module-candidate.js';

/** The process in which a candidate is judged: it may loop, throw or end, and nobody else is hurt. */

let sent = Promise.resolve();

/** What is longer than the channel's pipe is still being written when this returns. */
function send(message: JudgeMessage): void {
  sent = new Promise((resolve) => process.send!(message, () => resolve()));
}

process.on('beforeExit', () => process.exit(IDLE_STATUS));
process.on('disconnect', () => process.exit());
process.once('message', (job: JudgeJob) => {
  process.channel!.unref(); // listened to for its end, and no work that is under way
  // The last message is written after all others.
  void judge(job).finally(() => sent.then(() => process.disconnect()));
});

async function judge(job: JudgeJob): Promise<void> {
  let candidate: Candidate;
  try {
    candidate = await loadCandidate(job.candidate);
  } catch (thrown) {
    return send({ kind: 'refused', failure: plainOf(thrown) });
  }
  const { name, title, group, status } = candidate;
  const { met, list } = candidate.probe();
  if (!met) {
    const lacking = list.filter((requirement) => !requirement.met);
    send({ kind: 'loaded', facts: { name, title, group, status, deterministic: group !== 'live' } });
    return send({
      kind: 'unavailable',
      reason: lacking.map(({ what, found }) => `${what}: ${found}`).join('; '),
    });
  }
  const subject = candidate.subject();
  send({ kind: 'loaded', facts: { name, title, group, status, deterministic: subject.deterministic } });
  await judgeCells(new CellJudge(subject, checkOptions(job)), job);
  if (candidate.uapi) await play(candidate.uapi, job);
  send({ kind: 'over' });
}

async function judgeCells(judging: CellJudge, { cells }: JudgeJob): Promise<void> {
  for (const [index, cell] of cells.entries()) {
    send({ kind: 'begin', index });
    if (index === 0) await declare(judging);
    send({ kind: 'cell', index, result: await judging.judge(cell) });
  }
}

async function play(uapi: JudgedUapi, { cells, scenarios }: JudgeJob): Promise<void> {
  for (const [index, name] of scenarios.entries()) {
    send({ kind: 'begin', index: cells.length + index });
    const scenario = SCENARIOS.find((candidate) => candidate.name === name)!;
    send({ kind: 'scenario', result: await playScenario(scenario, uapi) });
  }
}

/** What cannot even be opened says so in every cell. */
async function declare(judging: CellJudge): Promise<void> {
  try {
    const { coverage, supports, sites } = await judging.manifest();
    send({ kind: 'declared', declared: { coverage, supports, sites } });
  } catch {
    // The cells will say it.
  }
}

function checkOptions({ options, blackBox }: JudgeJob): CheckOptions {
  const { runs, seed, within_ms, path } = options;
  const checking: CheckOptions = { runs, seed, within_ms: within_ms, ...(path !== undefined && { path }) };
  return blackBox === undefined ? checking : { ...checking, watch: recorder(blackBox) };
}

/** More events than any run has that comes to an end. */
const MOST_EVENTS = 100_000;

/** Keeps the events of the run under way in a file, by its descriptor, each as soon as it happens. */
function recorder(file: number): NonNullable<CheckOptions['watch']> {
  let events = 0;
  let end = 0;
  return {
    run() {
      events = end = 0;
      ftruncateSync(file, 0);
    },
    event(entry) {
      if (events++ < MOST_EVENTS) end += writeSync(file, `${JSON.stringify(entry)}\n`, end);
    },
  };
}

function plainOf(thrown: unknown): PlainFailure {
  if (!(thrown instanceof DemandPagingError))
    return { code: undefined, message: textOf(thrown), hint: undefined };
  const { code, message, hint } = thrown;
  return { code, message, hint };
}
