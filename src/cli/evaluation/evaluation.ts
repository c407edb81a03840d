import { type ChildProcess, fork } from 'node:child_process';
import { closeSync, fstatSync, readSync } from 'node:fs';
import { entryFile } from '../../api/package-entry.js';
import { condensed, failureText, type ProcessFailure, type TraceEntry } from '../../conformance/index.js';
import { type CaseResult, SCENARIOS, type ScenarioResult } from '../../scenarios/index.js';
import { ENDING_SIGNALS } from '../ending-signals.js';
import { type PlainFailure } from '../failure.js';
import { unnamedFile } from '../unnamed-file.js';
import { type Cell, cellName, type CellResult } from './cell.js';
import {
  BLACK_BOX,
  type TargetFacts,
  type Declared,
  IDLE_STATUS,
  type EvaluationJob,
  type EvaluationMessage,
  type RunOptions,
} from './evaluation-job.js';

/** What came of evaluating one target. */
export interface Evaluation {
  /** As it was asked for: a name or a path. */
  readonly target: string;
  readonly facts: TargetFacts | undefined;
  readonly declared: Declared | undefined;
  /** Why it was not evaluated on this host. */
  readonly unavailable: string | undefined;
  /** Why it could not be loaded. */
  readonly refused: PlainFailure | undefined;
  readonly cells: readonly CellResult[];
  /** None of what is no prototype. */
  readonly scenarios: readonly ScenarioResult[];
}

export interface EvaluationOptions extends RunOptions {
  /** Names of scenarios to be run after the cells. Default: none. */
  readonly scenarios?: readonly string[];
  /** A process that says nothing for so long, in milliseconds, is ended: a model does not answer any more. Default 20 s. */
  readonly answer_ms?: number;
  /** The same for a subject on a real kernel, whose runs wait for each other. Default 120 s. */
  readonly liveAnswer_ms?: number;
  /** So many times a target may end its process or not answer; what is left then is not begun. Default 2. */
  readonly patience?: number;
  hear?(progress: {
    readonly facts: TargetFacts | undefined;
    readonly done: number;
    readonly of: number;
  }): void;
}

const ANSWER_MS = 20_000;
const LIVE_ANSWER_MS = 120_000;
const PATIENCE = 2;

/** How a process ended that was to evaluate. `index`: the cell, or after the cells the scenario, it was at, if it was at one. */
interface ProcessEnd {
  readonly end: 'done' | 'silent' | { readonly died: string };
  readonly index: number | undefined;
}

/**
 * Evaluates cells of a target, and runs scenarios on it, in processes of its own, so that one which loops, throws,
 * ends its process or never answers is named, and the rest goes on.
 *
 * Never rejects for what a target does. Resolves within `answer_ms` of the last word of the last process.
 */
export async function evaluateTarget(
  target: string,
  cells: readonly Cell[],
  options: EvaluationOptions,
): Promise<Evaluation> {
  return new EvaluationRun(target, cells, options).run();
}

class EvaluationRun {
  readonly #target: string;
  readonly #cells: readonly Cell[];
  readonly #options: EvaluationOptions;
  readonly #results: (CellResult | undefined)[];
  readonly #scenarios: readonly string[];
  readonly #scenarioResults = new Map<string, ScenarioResult>();
  #facts: TargetFacts | undefined;
  #declared: Declared | undefined;
  #unavailable: string | undefined;
  #refused: PlainFailure | undefined;

  constructor(target: string, cells: readonly Cell[], options: EvaluationOptions) {
    this.#target = target;
    this.#cells = cells;
    this.#options = options;
    this.#results = cells.map(() => undefined);
    this.#scenarios = options.scenarios ?? [];
  }

  async run(): Promise<Evaluation> {
    let patience = this.#options.patience ?? PATIENCE;
    const { length } = this.#cells;
    for (let next = 0; next < length + this.#scenarios.length;) {
      const { end, index } = await this.#process(next);
      if (this.#unavailable !== undefined || this.#refused || end === 'done') break;
      if (index === undefined) {
        this.#refused ??= { code: 'MODULE_FAILED', message: this.#loadingEnd(end), hint: undefined };
        break;
      }
      if (index < length) this.#results[index] = await this.#unfinished(index, this.#failureOf(end));
      else this.#stuckIn(this.#scenarios[index - length]!, this.#failureOf(end));
      next = index + 1;
      if (--patience > 0) continue;
      this.#giveUp(next, index);
      break;
    }
    return {
      target: this.#target,
      facts: this.#facts,
      declared: this.#declared,
      unavailable: this.#unavailable,
      refused: this.#refused,
      cells: this.#results.filter((result) => result !== undefined),
      scenarios: this.#scenarios.flatMap((name) => this.#scenarioResults.get(name) ?? []),
    };
  }

  get #answer_ms(): number {
    const { answer_ms = ANSWER_MS, liveAnswer_ms = LIVE_ANSWER_MS } = this.#options;
    return this.#facts?.deterministic === false ? liveAnswer_ms : answer_ms;
  }

  get #runOptions(): RunOptions {
    const { runs, seed, within_ms, path } = this.#options;
    return { runs, seed, within_ms, ...(path !== undefined && { path }) };
  }

  /** One process, from a cell on. */
  async #process(from: number): Promise<ProcessEnd> {
    let at: number | undefined;
    const job: EvaluationJob = {
      target: this.#target,
      cells: this.#cells.slice(from),
      scenarios: this.#scenarios.slice(Math.max(0, from - this.#cells.length)),
      options: this.#runOptions,
    };
    const end = await runJob(
      job,
      () => this.#answer_ms,
      (message) => {
        if (message.kind === 'begin') at = from + message.index;
        else this.#hear(message, from);
      },
    );
    return { end, index: at };
  }

  #hear(message: Exclude<EvaluationMessage, { kind: 'begin' }>, from: number): void {
    switch (message.kind) {
      case 'loaded':
        this.#facts = message.facts;
        break;
      case 'unavailable':
        this.#unavailable = message.reason;
        break;
      case 'refused':
        this.#refused = message.failure;
        break;
      case 'declared':
        this.#declared ??= message.declared;
        break;
      case 'cell':
        this.#results[from + message.index] = message.result;
        break;
      case 'scenario':
        this.#scenarioResults.set(message.result.scenario, message.result);
        break;
      case 'over':
    }
    const evaluated = this.#results.filter((result) => result !== undefined).length;
    this.#options.hear?.({
      facts: this.#facts,
      done: evaluated + this.#scenarioResults.size,
      of: this.#cells.length + this.#scenarios.length,
    });
  }

  /** The result of a cell at which the process fell silent or died; repeated, it leaves its last events behind. */
  async #unfinished(index: number, failure: ProcessFailure): Promise<CellResult> {
    const cell = this.#cells[index]!;
    const blackBox = unnamedFile();
    const job: EvaluationJob = {
      target: this.#target,
      cells: [cell],
      scenarios: [],
      options: this.#runOptions,
      blackBox: BLACK_BOX,
    };
    await runJob(
      job,
      () => this.#answer_ms,
      () => {},
      blackBox,
    );
    const trace = condensed(eventsIn(blackBox));
    closeSync(blackBox);
    return { ...cell, outcome: 'fails', failure, trace, runs: 0 };
  }

  #giveUp(next: number, index: number): void {
    const { length } = this.#cells;
    const last =
      index < length ? cellName(this.#cells[index]!) : `the scenario ${this.#scenarios[index - length]!}`;
    const failure: ProcessFailure = { kind: 'not-evaluated', last };
    for (const [at, cell] of this.#cells.entries())
      if (at >= next) this.#results[at] = { ...cell, outcome: 'fails', failure, trace: [], runs: 0 };
    for (const name of this.#scenarios.slice(Math.max(0, next - length))) this.#stuckIn(name, failure);
  }

  /** A scenario that came to no end: none of its cases is told from the others. */
  #stuckIn(name: string, failure: ProcessFailure): void {
    const outcome = failure.kind === 'process-ended' ? 'fails' : 'hangs';
    const cases = Object.keys(SCENARIOS.find((scenario) => scenario.name === name)!.cases).map(
      (of): CaseResult => ({
        case: of,
        outcome,
        seen: { kind: 'process', failure },
        figures: {},
        trace: [],
      }),
    );
    this.#scenarioResults.set(name, {
      scenario: name,
      uapi: this.#facts?.name ?? this.#target,
      outcome,
      cases,
    });
  }

  #loadingEnd(end: Exclude<ProcessEnd['end'], 'done'>): string {
    return `${this.#target} cannot be loaded: ${failureText(this.#failureOf(end))}`;
  }

  #failureOf(end: Exclude<ProcessEnd['end'], 'done'>): ProcessFailure {
    if (end === 'silent') return { kind: 'no-answer', after_ms: this.#answer_ms };
    return end.died === IDLE ? { kind: 'idle' } : { kind: 'process-ended', how: end.died };
  }
}

const IDLE = statusText(IDLE_STATUS);

/** Processes that evaluate. */
const UNDER_WAY = new Set<ChildProcess>();

/** Whether a signal ends this process: then the end of a child says nothing about its target. */
let isEnding = false;

/** Longest time that a timer can have. */
const FOR_EVER_MS = 2 ** 31 - 1;

/**
 * A target in an endless loop does not notice that this process ends: what ends this process ends the others first.
 * The signal comes again; a handler that shows the cursor hears it on the event loop, which must not end before.
 */
function endAll(signal: NodeJS.Signals): void {
  isEnding = true;
  setTimeout(() => {}, FOR_EVER_MS);
  for (const child of UNDER_WAY) child.kill('SIGKILL');
  for (const each of ENDING_SIGNALS) process.off(each, endAll);
  process.kill(process.pid, signal);
}

/** Runs a job in a process and resolves when that is gone. */
async function runJob(
  job: EvaluationJob,
  answer_ms: () => number,
  hear: (message: EvaluationMessage) => void,
  blackBox?: number,
): Promise<ProcessEnd['end']> {
  const child = fork(entryFile('cli/evaluation/evaluation-worker'), {
    // What a target prints is no part of the evaluation.
    stdio: ['ignore', 'ignore', 'ignore', 'ipc', ...(blackBox === undefined ? [] : [blackBox])],
  });
  UNDER_WAY.add(child);
  if (UNDER_WAY.size === 1) for (const signal of ENDING_SIGNALS) process.on(signal, endAll);
  let silent = false;
  let over = false;
  let deadline: NodeJS.Timeout | undefined;
  const allow = (time_ms: number): void => {
    clearTimeout(deadline);
    deadline = setTimeout(() => {
      silent = true;
      child.kill('SIGKILL');
    }, time_ms);
  };
  child.on('message', (message: EvaluationMessage) => {
    hear(message);
    over = message.kind === 'over' || message.kind === 'refused' || message.kind === 'unavailable';
    allow(over ? GRACE_MS : answer_ms());
  });
  allow(answer_ms());
  child.send(job);
  const died = await ended(child);
  clearTimeout(deadline);
  UNDER_WAY.delete(child);
  if (UNDER_WAY.size === 0) for (const signal of ENDING_SIGNALS) process.off(signal, endAll);
  if (over) return 'done';
  return silent ? 'silent' : { died };
}

/** What a process that has said everything may still take to end. */
const GRACE_MS = 3000;

function ended(child: ChildProcess): Promise<string> {
  return new Promise((resolve) => {
    child.on('error', (error) => resolve(error.message));
    child.on('exit', (code, signal) => {
      if (!isEnding) resolve(signal ?? statusText(code));
    });
  });
}

function statusText(code: number | null): string {
  return `status ${code ?? 'unknown'}`;
}

/** The events that a process has left in its black box, without one that it was just writing. */
function eventsIn(file: number): readonly TraceEntry[] {
  const text = Buffer.alloc(fstatSync(file).size);
  readSync(file, text, 0, text.length, 0);
  const lines = text.toString().split('\n').slice(0, -1);
  return lines.map((line) => JSON.parse(line) as TraceEntry);
}
