import { type Command } from 'commander';
import { PROPERTY_NAMES, titleOf } from '../conformance/index.js';
import { wholeNumber } from './arguments.js';
import { type CommandContext } from './context.js';
import { EXIT, failureLines, UsageError } from './failure.js';
import { type Cell, cellsOf, COLUMNS, JUDGED } from './judge/cell.js';
import { judgeCandidate, type Judgement } from './judge/judgement.js';
import { countsOf, judgementLines } from './judge/judgement-text.js';
import { matrixCommand } from './judge/matrix-command.js';
import { withoutReproducer, writeReproducers } from './judge/reproducer-files.js';
import { candidateNames, isPath } from './judge/module-candidate.js';
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
/** In the matrix two dozen are judged, and each property at each site is a cell of its own. */
const MATRIX_RUNS = 40;

/** `conformance`: the named properties of demand paging, at each access site of a backend. */
export function conformanceCommand(program: Command, context: CommandContext): void {
  program
    .command('conformance')
    .description('judge a backend or a prototype: each named property at each access site')
    .option('--backend <name|path>', `a module, or one of: ${candidateNames().join(', ')} (default: memory)`)
    .option(
      '--matrix',
      'everybody side by side, and a module of --backend with them: writes a page and its data',
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
    .option('--path <path>', 'with --seed: plays one failure again; --only and --site say which')
    .option('--json', 'one JSON document on standard output')
    .action((options: ConformanceCommandOptions) =>
      options.matrix ? judgeAll(options, context) : judgeOne(options, context),
    );
}

function judgeAll(options: ConformanceCommandOptions, context: CommandContext): Promise<void> {
  const { backend, runs = MATRIX_RUNS, liveRuns, seed, out, only, json = false } = options;
  if (only ?? options.site ?? options.path)
    throw new UsageError('--matrix judges everything; it takes no --only, --site or --path');
  if (backend !== undefined && !isPath(backend))
    throw new UsageError(`--matrix judges everybody; beside it --backend takes a module, not '${backend}'`);
  const modules = backend === undefined ? [] : [backend];
  return matrixCommand({ runs, liveRuns, seed, out, json, modules }, context);
}

async function judgeOne(
  options: ConformanceCommandOptions,
  { terminal, exit }: CommandContext,
): Promise<void> {
  const { backend = 'memory', runs = RUNS, seed, path, json = false } = options;
  const cells = chosen(options);
  const live = json ? undefined : terminal.live();
  const judgement = await judgeCandidate(backend, cells, {
    runs,
    seed,
    ...(path !== undefined && { path }),
    within_ms: WITHIN_MS,
    hear: ({ done, of }) => live?.show(`${backend}: ${done} of ${of} cells judged`),
  });
  live?.end();
  if (judgement.refused) {
    for (const line of failureLines(judgement.refused)) terminal.err(line);
    // A name that is none is a mistake in the command line.
    return exit(judgement.refused.code === 'MODULE_NOT_FOUND' ? EXIT.usage : EXIT.failed);
  }
  if (judgement.unavailable !== undefined) {
    terminal.err(`error: ${backend} cannot be judged on this host: ${judgement.unavailable}`);
    return exit(EXIT.failed);
  }
  print(judgement, { seed, runs, json }, terminal);
  const programs = writeReproducers(judgement, options.out);
  if (programs.length > 0) terminal.err(`in C: ${programs.join(', ')}`);
  for (const line of withoutReproducer(judgement)) terminal.err(line);
  exit(countsOf(judgement.cells).fails === 0 ? EXIT.ok : EXIT.failed);
}

function print(
  judgement: Judgement,
  { seed, runs, json }: { readonly seed: number; readonly runs: number; readonly json: boolean },
  terminal: Terminal,
): void {
  if (json) {
    const counts = countsOf(judgement.cells);
    return terminal.document(JSON.stringify({ ...judgement, seed, runs, counts }));
  }
  for (const line of judgementLines(judgement, terminal.columns)) terminal.out(line);
}

function chosen({ only, site, path }: ConformanceCommandOptions): readonly Cell[] {
  const isProperty = (name: string): boolean =>
    (PROPERTY_NAMES as readonly string[]).includes(name) || JUDGED.some((each) => titleOf(each) === name);
  const unknown = only?.find((name) => !isProperty(name));
  if (unknown !== undefined)
    throw new UsageError(`there is no property '${unknown}': ${PROPERTY_NAMES.join(', ')}`);
  const nowhere = site?.find((name) => !(COLUMNS as readonly string[]).includes(name));
  if (nowhere !== undefined) throw new UsageError(`there is no site '${nowhere}': ${COLUMNS.join(', ')}`);
  // Of several parts of a name one is meant where its failure is played again.
  const wanted = JUDGED.filter(
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
