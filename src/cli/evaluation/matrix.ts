import { type AccessSite, classOf } from '../../api/index.js';
import { titleOf } from '../../conformance/index.js';
import { type CaseResult, publishedFits, SCENARIOS, type ScenarioResult } from '../../scenarios/index.js';
import { hostFacts } from '../host-facts.js';
import { TARGETS } from './target.js';
import { type Cell, type CellResult, cellsOf, COLUMNS, ALL_PROPERTIES } from './cell.js';
import { evaluateTarget, type Evaluation, type EvaluationOptions } from './evaluation.js';
import { type FaultSample, measureFaults } from './latency.js';
import { shows, type Shown, THREAD_HAZARDS, type ThreadHazard } from './thread-hazards.js';

/** One row of the matrix: a target, and all that was found out about it. */
export type MatrixRow = Evaluation;

/** A hazard, and the rows that have it. */
export interface HazardRow {
  readonly name: string;
  readonly title: string;
  readonly said: string;
  /** What shows it. */
  readonly shown: Shown;
  readonly has: readonly HazardShown[];
  /** Rows in which it was looked for and is not. */
  readonly hasNot: readonly string[];
}

/** A row that has a hazard, and the result that shows it. */
export interface HazardShown {
  readonly target: string;
  readonly result: CellResult | CaseResult;
}

/** Everything that the page shows. Plain data. */
export interface MatrixDocument {
  readonly format: 'demand-paging matrix, version 2';
  /** When it was made, ISO 8601. */
  readonly date: string;
  readonly host: {
    readonly kernel: string;
    readonly architecture: string;
    readonly cpus: number;
    readonly node: string;
  };
  readonly options: { readonly runs: number; readonly liveRuns: number; readonly seed: number };
  readonly elapsed_ms: number;
  readonly sites: readonly { readonly site: AccessSite; readonly class: string }[];
  readonly properties: readonly {
    readonly property: string;
    readonly claim: string;
    readonly about: string;
  }[];
  readonly scenarios: readonly {
    readonly name: string;
    readonly title: string;
    readonly description: string;
  }[];
  readonly rows: readonly MatrixRow[];
  readonly hazards: readonly HazardRow[];
  /** Accesses to missing pages on this host; empty where userfaultfd is unavailable. */
  readonly faults: readonly FaultSample[];
  readonly scaling: readonly {
    readonly curve: string;
    readonly model: string;
    readonly points: readonly {
      readonly vcpus: number;
      readonly measured: number;
      readonly predicted: number;
      readonly fitted: boolean;
    }[];
  }[];
}

export interface MatrixOptions {
  readonly runs: number;
  readonly liveRuns: number;
  readonly seed: number;
  /** Modules to be evaluated beside all targets. */
  readonly modules: readonly string[];
  /** Only these, by name. Default: all targets. */
  readonly only?: readonly string[];
  /** Default: all. */
  readonly cells?: readonly Cell[];
  /** Longest checking of a cell that is not live, its search for a smaller counterexample included. Default 3000. */
  readonly within_ms?: number;
  /** Told whenever something was found out. */
  hear(progress: MatrixProgress): void;
}

export interface MatrixProgress {
  /** Targets that are being evaluated, with how much of each is done, from 0 to 1. */
  readonly underWay: ReadonlyMap<string, number>;
  readonly done: number;
  readonly of: number;
}

const WITHIN_MS = 3000;
const LIVE_WITHIN_MS = 2000;
const AT_ONCE = 2;

/** Evaluates all targets, two at once, and measures what a missing page costs when nothing else goes on any more. */
export async function makeMatrix(options: MatrixOptions): Promise<MatrixDocument> {
  const started = performance.now();
  const wanted = TARGETS.filter(({ name }) => options.only?.includes(name) ?? true);
  const live = wanted.filter(({ group }) => group === 'live').map(({ name }) => name);
  const stepped = wanted.filter(({ group }) => group !== 'live').map(({ name }) => name);
  const progress = new Progress(wanted.length + options.modules.length, options);
  // Verdicts do not depend on time, so what is live is evaluated beside the others, which have the rest of the machine.
  const [evaluatedLive, evaluated] = await Promise.all([
    inTurns(live, 1, (name) => progress.evaluate(name, true)),
    inTurns([...stepped, ...options.modules], live.length > 0 ? 1 : AT_ONCE, (name) =>
      progress.evaluate(name, false),
    ),
  ]);
  const rows = [...evaluatedLive, ...evaluated].map((row) => ({
    ...row,
    scenarios: row.scenarios.map(withoutTraces),
  }));
  const { kernel, architecture, cpus, node } = hostFacts();
  return {
    format: 'demand-paging matrix, version 2',
    date: new Date().toISOString(),
    host: { kernel, architecture, cpus, node },
    options: { runs: options.runs, liveRuns: options.liveRuns, seed: options.seed },
    sites: COLUMNS.map((site) => ({ site, class: classOf(site) })),
    properties: ALL_PROPERTIES.map((property) => ({
      property: titleOf(property),
      claim: property.claim,
      about: property.about,
    })),
    scenarios: SCENARIOS.map(({ name, title, description }) => ({ name, title, description })),
    rows,
    hazards: THREAD_HAZARDS.map((hazard) => hazardRow(hazard, rows)),
    faults: evaluatedLive.some(({ target, cells }) => target === 'userfaultfd' && cells.length > 0)
      ? await measureFaults()
      : [],
    scaling: publishedFits().map(({ curve, model, predictions }) => ({
      curve,
      model: model.name,
      points: predictions.map(({ vcpus, kiloPagesPerSecond, predicted, fitted }) => ({
        vcpus,
        measured: kiloPagesPerSecond,
        predicted,
        fitted,
      })),
    })),
    elapsed_ms: performance.now() - started,
  };
}

/** Who is being evaluated, and how far that is. */
class Progress {
  readonly #underWay = new Map<string, number>();
  #done = 0;
  readonly #of: number;
  readonly #options: MatrixOptions;

  constructor(of: number, options: MatrixOptions) {
    this.#of = of;
    this.#options = options;
  }

  async evaluate(name: string, live: boolean): Promise<Evaluation> {
    const { runs, liveRuns, seed, within_ms = WITHIN_MS } = this.#options;
    this.#tell(name, 0);
    const options: EvaluationOptions = {
      runs: live ? liveRuns : runs,
      seed,
      within_ms: live ? LIVE_WITHIN_MS : within_ms,
      scenarios: SCENARIOS.map(({ name: scenario }) => scenario),
      hear: ({ done, of }) => this.#tell(name, done / of),
    };
    const evaluation = await evaluateTarget(name, this.#options.cells ?? cellsOf(), options);
    this.#underWay.delete(name);
    this.#done++;
    this.#options.hear({ underWay: this.#underWay, done: this.#done, of: this.#of });
    return evaluation;
  }

  #tell(name: string, part: number): void {
    this.#underWay.set(name, part);
    this.#options.hear({ underWay: this.#underWay, done: this.#done, of: this.#of });
  }
}

/** Does something with each, so many at once; results in the order of the items. */
async function inTurns<T, R>(
  items: readonly T[],
  atOnce: number,
  body: (item: T) => Promise<R>,
): Promise<R[]> {
  const results: R[] = [];
  const left = [...items.entries()];
  const workers = Array.from({ length: atOnce }, async () => {
    for (let next = left.shift(); next; next = left.shift()) results[next[0]] = await body(next[1]);
  });
  await Promise.all(workers);
  return results;
}

/** What works needs no trace. */
const withoutTraces = (result: ScenarioResult): ScenarioResult => ({
  ...result,
  cases: result.cases.map((each) => (each.outcome === 'works' ? { ...each, trace: [] } : each)),
});

/** Who has a hazard. Rows of which that cannot be said are in neither list: not evaluated, not applicable, broken otherwise. */
export function hazardRow(hazard: ThreadHazard, rows: readonly MatrixRow[]): HazardRow {
  const has: HazardShown[] = [];
  const hasNot: string[] = [];
  for (const row of rows) {
    const found = find(hazard, row);
    const target = row.facts?.name ?? row.target;
    if (found === 'absent') hasNot.push(target);
    else if (found) has.push({ target, result: found });
  }
  const { name, title, said, shown } = hazard;
  return { name, title, said, shown, has, hasNot };
}

type Found = HazardShown['result'] | 'absent' | undefined;

function find({ shown }: ThreadHazard, row: MatrixRow): Found {
  switch (shown.by) {
    case 'site':
      return atSite(shown.site, row);
    case 'property':
      return ofProperty(shown, row);
    case 'scenario':
      return inScenario(shown, row);
  }
}

const WITNESS = 'no-zero-leak';

function atSite(site: AccessSite, { cells }: MatrixRow): Found {
  const result = cells.find((cell) => cell.property === WITNESS && cell.site === site);
  if (!result || result.outcome === 'not-applicable' || result.outcome === 'skipped') return undefined;
  return result.outcome === 'unmediated' ? result : 'absent';
}

function ofProperty(shown: Extract<Shown, { by: 'property' }>, { cells }: MatrixRow): Found {
  const { property, unless = [] } = shown;
  const failing = (title: string): readonly CellResult[] =>
    cells.filter((cell) => cell.property === title && cell.outcome === 'fails');
  if (unless.some((title) => failing(title).length > 0)) return undefined;
  const found = failing(property).find((result) => shows(shown, result));
  if (found) return found;
  // What breaks otherwise says nothing of this.
  const evaluated = cells.filter((cell) => cell.property === property);
  return evaluated.some(({ outcome }) => outcome === 'holds') && failing(property).length === 0
    ? 'absent'
    : undefined;
}

function inScenario(shown: Extract<Shown, { by: 'scenario' }>, { scenarios }: MatrixRow): Found {
  const result = scenarios
    .find(({ scenario }) => scenario === shown.scenario)
    ?.cases.find((each) => each.case === shown.case);
  if (!result) return undefined;
  return shows(shown, result) ? result : 'absent';
}
