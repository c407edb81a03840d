import { type Command } from 'commander';
import {
  type CaseVerdict,
  type JudgedUapi,
  playScenario,
  publishedFits,
  type Scenario,
  SCENARIOS,
  type ScenarioVerdict,
  UAPIS,
} from '../scenarios/index.js';
import { type CommandContext } from './context.js';
import { EXIT, UsageError } from './failure.js';
import { paragraph } from './paragraph.js';
import { type Terminal } from './terminal.js';
import { textTable, textTablesWithin } from './text-table.js';

interface ScenarioCommandOptions {
  readonly uapi?: readonly string[];
  readonly json?: boolean;
}

/** `scenario`: what designs of demand paging must survive, played on each UAPI's model. */
export function scenarioCommand(program: Command, context: CommandContext): void {
  program
    .command('scenario')
    .description('play what designs of demand paging must survive on each UAPI, real and proposed')
    .argument('[name]', `one of: ${SCENARIOS.map(({ name }) => name).join(', ')} (default: all, as a table)`)
    .option('--uapi <name...>', 'only these; with a scenario, its failures come with who did what')
    .option('--json', 'one JSON document on standard output')
    .action(async (name: string | undefined, options: ScenarioCommandOptions) => {
      const scenarios = chosen('scenario', SCENARIOS, name === undefined ? undefined : [name]);
      const uapis = chosen('UAPI', UAPIS, options.uapi);
      const verdicts: ScenarioVerdict[] = [];
      for (const scenario of scenarios)
        for (const uapi of uapis) verdicts.push(await playScenario(scenario, uapi));
      const { terminal } = context;
      if (options.json) terminal.document(JSON.stringify(documentOf(scenarios, uapis, verdicts)));
      else if (name === undefined) overview(scenarios, uapis, verdicts, terminal);
      else {
        const [scenario] = scenarios;
        describe(scenario!, verdicts, { terminal, timelines: options.uapi !== undefined });
      }
      // A verdict is a result, whatever it is.
      context.exit(EXIT.ok);
    });
}

function chosen<T extends { readonly name: string }>(
  what: string,
  all: readonly T[],
  names: readonly string[] | undefined,
): readonly T[] {
  if (names === undefined) return all;
  const known = all.map(({ name }) => name);
  const unknown = names.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new UsageError(`there is no ${what} '${unknown}': ${known.join(', ')}`);
  return all.filter(({ name }) => names.includes(name));
}

function documentOf(
  scenarios: readonly Scenario[],
  uapis: readonly JudgedUapi[],
  verdicts: readonly ScenarioVerdict[],
): unknown {
  return {
    scenarios: scenarios.map(({ name, title, plays, source, cases }) => ({
      name,
      title,
      plays,
      source,
      cases,
    })),
    uapis: uapis.map(({ name, title, status }) => ({ name, title, status })),
    verdicts,
    ...(scenarios.some(({ name }) => name === 'many-vcpus') && {
      scaling: publishedFits().map(({ model, ...fit }) => ({
        ...fit,
        model: model.name,
        parameters: model.parameters,
      })),
    }),
  };
}

/** The worst case of each scenario on each UAPI. */
function overview(
  scenarios: readonly Scenario[],
  uapis: readonly JudgedUapi[],
  verdicts: readonly ScenarioVerdict[],
  terminal: Terminal,
): void {
  const rows = uapis.map(({ name }) => [
    name,
    ...scenarios.map(
      ({ name: scenario }) =>
        verdicts.find((verdict) => verdict.uapi === name && verdict.scenario === scenario)!.grade,
    ),
  ]);
  const head = ['', ...scenarios.map(({ name }) => name)];
  for (const table of textTablesWithin(terminal.columns, rows, { head, indent: 0 })) {
    for (const line of table) terminal.out(line);
    terminal.out('');
  }
  const legend =
    'The worst case of each: works; needs-vmm: right if the VMM does more; slow; cannot: there is no way to ask for it; fails: somebody is told; hangs; silent: nobody is told. `scenario <name>` says more.';
  for (const line of paragraph(legend, terminal.columns, 0)) terminal.out(line);
}

function describe(
  scenario: Scenario,
  verdicts: readonly ScenarioVerdict[],
  { terminal, timelines }: { readonly terminal: Terminal; readonly timelines: boolean },
): void {
  const say = (text: string, indent: number): void => {
    for (const line of paragraph(text, terminal.columns, indent)) terminal.out(line);
  };
  say(`${scenario.title}. ${scenario.plays}`, 0);
  say(`(${scenario.source})`, 0);
  for (const [name, about] of Object.entries(scenario.cases)) {
    terminal.out('');
    say(`${name}: ${about}`, 0);
    for (const { uapi, cases } of verdicts) {
      const verdict = cases.find((candidate) => candidate.case === name)!;
      say(`  ${uapi.padEnd(22)} ${verdict.grade.padEnd(9)} ${verdict.says}`, 35);
      if (timelines && isCounterexample(verdict))
        for (const line of verdict.timeline) terminal.out(`    ${line}`);
    }
  }
  if (scenario.name === 'many-vcpus') for (const line of scalingLines()) terminal.out(line);
}

const isCounterexample = ({ grade }: CaseVerdict): boolean =>
  grade === 'fails' || grade === 'hangs' || grade === 'silent';

const percent = (part: number): string => `${part < 0 ? '−' : '+'}${Math.abs(part * 100).toFixed(0)} %`;

/** The models of the published curves, each point with its error. */
function scalingLines(): readonly string[] {
  return publishedFits().flatMap(({ curve, fittedOn, model, predictions, meanError, largestError }) => [
    '',
    `${curve}: ${model.name}, fitted with ${fittedOn.join(', ')} vCPUs (${Object.entries(model.parameters)
      .map(([name, value]) => `${name} ${value.toPrecision(3)}`)
      .join(', ')})`,
    ...textTable(
      predictions.map(({ vcpus, kiloPagesPerSecond, predicted, error, fitted }) => [
        vcpus,
        kiloPagesPerSecond,
        predicted.toFixed(0),
        fitted ? 'fitted' : percent(error),
      ]),
      { head: ['vCPUs', 'k pages/s', 'model', 'error'], figures: [0, 1, 2, 3] },
    ),
    `  the others: mean error ${(meanError * 100).toFixed(0)} %, largest ${(largestError * 100).toFixed(0)} %`,
  ]);
}
