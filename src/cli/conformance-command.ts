import { type Command } from 'commander';
import { PROPERTY_NAMES, titleOf } from '../conformance/index.js';
import { wholeNumber } from './arguments.js';
import { type CommandContext } from './context.js';
import { EXIT, failureLines, UsageError } from './failure.js';
import { type Cell, cellsOf, COLUMNS, ALL_PROPERTIES } from './evaluation/cell.js';
import { evaluateTarget, type Evaluation } from './evaluation/evaluation.js';
import { countsOf, evaluationLines } from './evaluation/evaluation-text.js';
import { matrixCommand } from './evaluation/matrix-command.js';
import { withoutReproducer, writeReproducers } from './evaluation/reproducer-files.js';
import { targetNames, isPath } from './evaluation/module-target.js';
import { type Terminal } from './terminal.js';

interface ConformanceCommandOptions {
  readonly backend?: string;
  readonly matrix?: boolean;
  readonly out: string;
  readonly runs?: number;
  readonly liveRuns: number;
  readonly seed: number;
  readonly only?: readonly string[];
  readonly site?: readonly string[];
  readonly path?: string;
  readonly json?: boolean;
}

/** Longest search for a smaller counterexample, and longest checking of one cell, in milliseconds. */
const WITHIN_MS = 10_000;

const RUNS = 50;
/** In the matrix two dozen are evaluated, and each property at each site is a cell of its own. */
const MATRIX_RUNS = 40;

/** `conformance`: the named properties of demand paging, at each access site of a backend. */
export function conformanceCommand(program: Command, context: CommandContext): void {
  program
    .command('conformance')
    .description('evaluate a backend or a prototype: each named property at each access site')
    .option('--backend <name|path>', `a module, or one of: ${targetNames().join(', ')} (default: memory)`)
    .option(
      '--matrix',
      'all targets side by side, and a module of --backend with them: writes a page and its data',
    )
    .option(
      '--out <folder>',
      'where --matrix writes, and C programs of what fails on a real kernel go',
      'demand-paging-matrix',
    )
    .option('--runs <n>', 'runs of each property at each site (default: 50)', wholeNumber(1, 10_000_000))
    .option('--live-runs <n>', 'the same on a real kernel, for --matrix', wholeNumber(1, 10_000_000), 3)
    .option('--seed <n>', 'of all that is chosen', wholeNumber(0, 0x7fff_ffff), 1)
    .option('--only <property...>', 'only these properties, by name, or a part of one by its title')
    .option('--site <site...>', 'only at these access sites')
    .option('--path <path>', 'with --seed: repeats one failure; --only and --site say which')
    .option('--json', 'one JSON document on standard output')
    .action((options: ConformanceCommandOptions) =>
      options.matrix ? evaluateAll(options, context) : evaluateOne(options, context),
    );
}

function evaluateAll(options: ConformanceCommandOptions, context: CommandContext): Promise<void> {
  const { backend, runs = MATRIX_RUNS, liveRuns, seed, out, only, json = false } = options;
  if (only ?? options.site ?? options.path)
    throw new UsageError('--matrix evaluates everything; it takes no --only, --site or --path');
  if (backend !== undefined && !isPath(backend))
    throw new UsageError(
      `--matrix evaluates all targets; beside it --backend takes a module, not '${backend}'`,
    );
  const modules = backend === undefined ? [] : [backend];
  return matrixCommand({ runs, liveRuns, seed, out, json, modules }, context);
}

async function evaluateOne(
  options: ConformanceCommandOptions,
  { terminal, exit }: CommandContext,
): Promise<void> {
  const { backend = 'memory', runs = RUNS, seed, path, json = false } = options;
  const cells = chosen(options);
  const live = json ? undefined : terminal.live();
  const evaluation = await evaluateTarget(backend, cells, {
    runs,
    seed,
    ...(path !== undefined && { path }),
    within_ms: WITHIN_MS,
    hear: ({ done, of }) => live?.show(`${backend}: ${done} of ${of} cells evaluated`),
  });
  live?.end();
  if (evaluation.refused) {
    for (const line of failureLines(evaluation.refused)) terminal.err(line);
    // A name that is none is a mistake in the command line.
    return exit(evaluation.refused.code === 'MODULE_NOT_FOUND' ? EXIT.usage : EXIT.failed);
  }
  if (evaluation.unavailable !== undefined) {
    terminal.err(`error: ${backend} cannot be evaluated on this host: ${evaluation.unavailable}`);
    return exit(EXIT.failed);
  }
  print(evaluation, { seed, runs, json }, terminal);
  const programs = writeReproducers(evaluation, options.out);
  if (programs.length > 0) terminal.err(`in C: ${programs.join(', ')}`);
  for (const line of withoutReproducer(evaluation)) terminal.err(line);
  exit(countsOf(evaluation.cells).fails === 0 ? EXIT.ok : EXIT.failed);
}

function print(
  evaluation: Evaluation,
  { seed, runs, json }: { readonly seed: number; readonly runs: number; readonly json: boolean },
  terminal: Terminal,
): void {
  if (json) {
    const counts = countsOf(evaluation.cells);
    return terminal.document(JSON.stringify({ ...evaluation, seed, runs, counts }));
  }
  for (const line of evaluationLines(evaluation, terminal.columns)) terminal.out(line);
}

function chosen({ only, site, path }: ConformanceCommandOptions): readonly Cell[] {
  const isProperty = (name: string): boolean =>
    (PROPERTY_NAMES as readonly string[]).includes(name) ||
    ALL_PROPERTIES.some((each) => titleOf(each) === name);
  const unknown = only?.find((name) => !isProperty(name));
  if (unknown !== undefined)
    throw new UsageError(`there is no property '${unknown}': ${PROPERTY_NAMES.join(', ')}`);
  const nowhere = site?.find((name) => !(COLUMNS as readonly string[]).includes(name));
  if (nowhere !== undefined) throw new UsageError(`there is no site '${nowhere}': ${COLUMNS.join(', ')}`);
  // Of several parts of a name one is meant where its failure is repeated.
  const wanted = ALL_PROPERTIES.filter(
    (property) =>
      only === undefined ||
      only.includes(titleOf(property)) ||
      (path === undefined && only.includes(property.name)),
  );
  const cells = cellsOf(wanted).filter((cell) => site === undefined || site.includes(cell.site ?? ''));
  if (path !== undefined && cells.length !== 1)
    throw new UsageError(
      `--path is of one property at one site, not of ${cells.length}: say which by --only and --site`,
    );
  return cells;
}
