import { type Command, Option } from 'commander';
import {
  type AnyProperty,
  checkProperty,
  PROPERTIES,
  PROPERTY_NAMES,
  type Report,
} from '../conformance/index.js';
import { wholeNumber } from './arguments.js';
import { type CommandContext } from './context.js';
import { SUBJECTS } from './conformance-subjects.js';
import { EXIT, UsageError } from './failure.js';
import { paragraph } from './paragraph.js';

interface ConformanceCommandOptions {
  readonly backend: string;
  readonly runs?: number;
  readonly seed: number;
  readonly only?: readonly string[];
  readonly json?: boolean;
}

/** `conformance`: the named properties of demand paging, checked on a backend of this host. */
export function conformanceCommand(program: Command, context: CommandContext): void {
  const names = Object.keys(SUBJECTS);
  program
    .command('conformance')
    .description('check the named properties of demand paging on a backend')
    .addOption(new Option('--backend <name>', 'which').choices(names).default(names[0]!))
    .addOption(
      new Option(
        '--runs <n>',
        'runs of each property (default: 1000 on the model, 20 on a kernel)',
      ).argParser(wholeNumber(1, 10_000_000)),
    )
    .addOption(
      new Option('--seed <n>', 'of all that is chosen').argParser(wholeNumber(0, 0x7fff_ffff)).default(1),
    )
    .option('--only <property...>', 'only these properties, by name')
    .option('--json', 'one JSON document on standard output')
    .action(async (options: ConformanceCommandOptions) => {
      const { terminal } = context;
      const reports: Report[] = [];
      for (const property of chosen(options.only)) {
        const report = await checkProperty(property, SUBJECTS[options.backend]!(), {
          seed: options.seed,
          ...(options.runs === undefined ? {} : { runs: options.runs }),
        });
        reports.push(report);
        if (!options.json) for (const line of propertyLines(report, terminal.columns)) terminal.out(line);
      }
      const of = (outcome: Report['outcome']): number =>
        reports.filter((report) => report.outcome === outcome).length;
      const counts = { held: of('held'), failed: of('failed'), skipped: of('skipped') };
      if (options.json)
        terminal.out(
          JSON.stringify({ backend: options.backend, seed: options.seed, ...counts, properties: reports }),
        );
      else
        terminal.out(
          `${options.backend}: ${counts.held} hold, ${counts.failed} fail, ${counts.skipped} skipped`,
        );
      context.exit(counts.failed === 0 ? EXIT.ok : EXIT.failed);
    });
}

function chosen(only: readonly string[] | undefined): readonly AnyProperty[] {
  if (only === undefined) return PROPERTIES;
  const unknown = only.find((name) => !(PROPERTY_NAMES as readonly string[]).includes(name));
  if (unknown !== undefined)
    throw new UsageError(`there is no property '${unknown}': ${PROPERTY_NAMES.join(', ')}`);
  return PROPERTIES.filter(({ name }) => only.includes(name));
}

/** One property in one line, or with its counterexample below. */
export function propertyLines(report: Report, columns: number): string[] {
  const title = report.part === undefined ? report.name : `${report.name} (${report.part})`;
  switch (report.outcome) {
    case 'held':
      return [`holds    ${title}, ${report.runs} runs`];
    case 'skipped':
      return paragraph(`skipped  ${title}: ${report.reason}`, columns, 9);
    case 'failed':
      return [
        `FAILS    ${title}`,
        ...report.message.split('\n').flatMap((line) => paragraph(' '.repeat(9) + line, columns, 11)),
      ];
  }
}
