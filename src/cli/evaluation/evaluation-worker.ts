import { ftruncateSync, writeSync } from 'node:fs';
import { DemandPagingError } from '../../api/index.js';
import { type CheckOptions } from '../../conformance/index.js';
import { type UapiInUse, runScenario, SCENARIOS } from '../../scenarios/index.js';
import { type PlainFailure } from '../failure.js';
import { type Target } from './target.js';
import { CellEvaluator, textOf } from './cell-evaluator.js';
import { IDLE_STATUS, type EvaluationJob, type EvaluationMessage } from './evaluation-job.js';
import { loadTarget } from './module-target.js';

/** The process in which a target is evaluated: it may loop, throw or end without harm to others. */

let sent = Promise.resolve();

/** What is longer than the channel's pipe is still being written when this returns. */
function send(message: EvaluationMessage): void {
  sent = new Promise((resolve) => process.send!(message, () => resolve()));
}

process.on('beforeExit', () => process.exit(IDLE_STATUS));
process.on('disconnect', () => process.exit());
process.once('message', (job: EvaluationJob) => {
  process.channel!.unref(); // listened to for its end, and no work that is under way
  // The last message is written after all others.
  void evaluate(job).finally(() => sent.then(() => process.disconnect()));
});

async function evaluate(job: EvaluationJob): Promise<void> {
  let target: Target;
  try {
    target = await loadTarget(job.target);
  } catch (thrown) {
    return send({ kind: 'refused', failure: plainOf(thrown) });
  }
  const { name, title, group, status } = target;
  const { met, list } = target.probe();
  if (!met) {
    const lacking = list.filter((requirement) => !requirement.met);
    send({ kind: 'loaded', facts: { name, title, group, status, deterministic: group !== 'live' } });
    return send({
      kind: 'unavailable',
      reason: lacking.map(({ what, found }) => `${what}: ${found}`).join('; '),
    });
  }
  const subject = target.subject();
  send({ kind: 'loaded', facts: { name, title, group, status, deterministic: subject.deterministic } });
  await evaluateCells(new CellEvaluator(subject, checkOptions(job)), job);
  if (target.uapi) await runScenarios(target.uapi, job);
  send({ kind: 'over' });
}

async function evaluateCells(evaluator: CellEvaluator, { cells }: EvaluationJob): Promise<void> {
  for (const [index, cell] of cells.entries()) {
    send({ kind: 'begin', index });
    if (index === 0) await declare(evaluator);
    send({ kind: 'cell', index, result: await evaluator.evaluate(cell) });
  }
}

async function runScenarios(uapi: UapiInUse, { cells, scenarios }: EvaluationJob): Promise<void> {
  for (const [index, name] of scenarios.entries()) {
    send({ kind: 'begin', index: cells.length + index });
    const scenario = SCENARIOS.find((target) => target.name === name)!;
    send({ kind: 'scenario', result: await runScenario(scenario, uapi) });
  }
}

/** What cannot even be opened says so in every cell. */
async function declare(evaluator: CellEvaluator): Promise<void> {
  try {
    const { coverage, supports, sites } = await evaluator.manifest();
    send({ kind: 'declared', declared: { coverage, supports, sites } });
  } catch {
    // The cells will say it.
  }
}

function checkOptions({ options, blackBox }: EvaluationJob): CheckOptions {
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
