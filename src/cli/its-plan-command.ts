import { type Command, Option } from 'commander';
import { errnoName, type Gpa, hex, WINDOW_BYTES } from '../api/index.js';
import { type Plan, planRestore, type PlanMemory, type PlanOptions } from '../arm64/index.js';
import { milliseconds, wholeNumber } from './arguments.js';
import { type CommandContext } from './context.js';
import { EXIT } from './failure.js';
import { duration, plural } from './quantity.js';
import { programmedVgic, type SavedVm, savedVm } from './saved-vm.js';
import { type StructureMap, structuresOf } from './structure-map.js';
import { textTable } from './text-table.js';
import { readVector } from './vector-file.js';
import { type FetchTime, VirtualSource } from './virtual-source.js';

interface PlanCommandOptions {
  readonly latency: number;
  readonly inFlight: number;
  readonly speculate?: boolean;
  readonly explain?: boolean;
  readonly json?: boolean;
}

/** A plan, when its pages came, and what they are. */
export interface PlannedRestore {
  readonly plan: Plan;
  readonly fetches: readonly FetchTime[];
  readonly elapsed_ms: number;
  readonly structures: StructureMap;
}

/** `its plan`: which pages restoring the tables will touch, in how many rounds they can be had. */
export function itsPlanCommand(its: Command, context: CommandContext): void {
  its
    .command('plan')
    .description('plan the restore of saved ITS tables: the pages it will touch, by round')
    .argument('<vector>', 'file.jsonl#A-000')
    .addOption(
      new Option('--latency <ms>', 'how long a page takes to arrive').argParser(milliseconds).default(1),
    )
    .addOption(
      new Option('--in-flight <n>', 'pages fetched at once').argParser(wholeNumber(1, 65536)).default(64),
    )
    .option('--speculate', 'fetch also what is only likely to be touched, to need fewer rounds')
    .option('--explain', 'show each page and when it was under way')
    .option('--json', 'one JSON document on standard output')
    .action(async (name: string, options: PlanCommandOptions) => {
      const { terminal } = context;
      const planned = await makePlan(savedVm(readVector(name)), options);
      if (options.json) terminal.document(JSON.stringify(planJson(planned, options)));
      else for (const line of planLines(planned, options, terminal.columns)) terminal.out(line);
      planned.plan.release();
      context.exit(planned.plan.status === 0 && planned.plan.complete ? EXIT.ok : EXIT.failed);
    });
}

async function makePlan(
  vm: SavedVm,
  { latency, inFlight, speculate }: PlanCommandOptions,
): Promise<PlannedRestore> {
  const vgic = programmedVgic(vm);
  const structures = structuresOf(vgic, vm.vector.vm.vcpu_ids.length, vm.memory);
  const source = new VirtualSource(latency);
  const memory: PlanMemory = {
    visible: (page) => vm.memory.layout.regionAt(page) !== undefined,
    present: () => false,
    async fetch(pages) {
      await source.wait(pages);
      return pages.map((page) => vm.memory.readSync(page, WINDOW_BYTES));
    },
    release() {},
  };
  const options: PlanOptions = { inFlight, turn: source.turn, ...(speculate ? { speculation: {} } : {}) };
  const plan = await planRestore(vgic, memory, 0, options);
  return { plan, fetches: source.fetches, elapsed_ms: source.now_ms, structures };
}

function planJson(
  { plan, fetches, elapsed_ms, structures }: PlannedRestore,
  { latency, inFlight }: PlanCommandOptions,
): object {
  const { touched, status, complete, cutBy, rounds, speculated } = plan;
  return {
    status,
    complete,
    ...(cutBy === undefined ? {} : { cutBy }),
    latency_ms: latency,
    inFlight,
    elapsed_ms,
    touched: touched.map(({ page, kind }) => ({ page: hex(page), kind, structure: structures.nameOf(page) })),
    rounds: rounds.map((pages) => pages.map(hex)),
    speculated: speculated.map(hex),
    fetches: fetches.map(({ page, ...times }) => ({ page: hex(page), ...times })),
  };
}

/** The plan as text. */
export function planLines(planned: PlannedRestore, options: PlanCommandOptions, columns: number): string[] {
  const { plan, elapsed_ms, structures } = planned;
  const { touched, rounds, speculated, status } = plan;
  const lines = textTable(roundRows(rounds, structures), { head: ['round', 'pages of'], indent: 0 });
  if (options.explain) lines.push('', ...waterfall(planned, columns));
  const serial_ms = touched.length * options.latency;
  const wasted = speculated.length === 0 ? '' : `; ${speculated.length} more fetched for nothing`;
  lines.push(
    '',
    `${plural(touched.length, 'page')} touched, known in ${plural(rounds.length, 'round')}${wasted}`,
    `at ${duration(options.latency)} a page: planned ${duration(elapsed_ms)} (${options.inFlight} at once), ` +
      `one after the other ${duration(serial_ms)}`,
    status === 0 ? 'the restore will succeed' : `the restore will fail: ${errnoName(-status)}`,
  );
  if (plan.cutBy !== undefined)
    lines.push(`cut short by ${plan.cutBy}: what the tables name is more than a plan takes`);
  return lines;
}

/** A row a round; rounds alike in a row are one. */
function roundRows(rounds: Plan['rounds'], structures: StructureMap): [string, string][] {
  const rows: { first: number; last: number; what: string }[] = [];
  for (const [index, pages] of rounds.entries()) {
    const what = summary(pages, structures);
    const before = rows.at(-1);
    if (before?.what === what) before.last = index + 1;
    else rows.push({ first: index + 1, last: index + 1, what });
  }
  return rows.map(({ first, last, what }) =>
    first === last ? [String(first), what] : [`${first}-${last}`, `${what}, each time`],
  );
}

/** `2 device-table, 1 level-1-table`. */
function summary(pages: readonly Gpa[], structures: StructureMap): string {
  const counts = new Map<string, number>();
  for (const page of pages) {
    const name = structures.nameOf(page);
    counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return [...counts].map(([name, count]) => `${count} ${name}`).join(', ');
}

/** Each page with a bar from when it was asked for to when it came. */
function waterfall({ plan, fetches, elapsed_ms, structures }: PlannedRestore, columns: number): string[] {
  const kinds = new Map(plan.touched.map(({ page, kind }) => [page, kind]));
  const left = fetches.map(({ page }) => [hex(page), structures.nameOf(page), kinds.get(page) ?? '-']);
  const table = textTable(left, { head: ['page', 'structure', 'access'], indent: 0 });
  const used = Math.max(...table.map((line) => line.length)) + 2;
  const width = Math.max(10, columns - used - 1);
  const at = (ms: number): number => Math.min(width - 1, Math.floor((ms / elapsed_ms) * width));
  const bars = fetches.map(({ from_ms, to_ms }) => {
    const from = at(from_ms);
    return ' '.repeat(from) + '█'.repeat(Math.max(1, at(to_ms) - from));
  });
  const head = `0${duration(elapsed_ms).padStart(width - 1)}`;
  return table.map((line, row) => `${line.padEnd(used)}${row === 0 ? head : bars[row - 1]}`);
}
