import { type Command } from 'commander';
import {
  type CaseResult,
  caseText,
  formatScenarioTrace,
  type UapiInUse,
  runScenario,
  publishedFits,
  type Scenario,
  SCENARIOS,
  type ScenarioResult,
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

/** `scenario`: what designs of demand paging must survive, run on each UAPI's model. */
export function scenarioCommand(program: Command, context: CommandContext): void {
  program
    .command('scenario')
    .description('run what designs of demand paging must survive on each UAPI, real and proposed')
    .argument('[name]', `one of: ${SCENARIOS.map(({ name }) => name).join(', ')} (default: all, as a table)`)
    .option('--uapi <name...>', 'only these; with a scenario, its failures come with who did what')
    .option('--json', 'one JSON document on standard output')
    .action(async (name: string | undefined, options: ScenarioCommandOptions) => {
      const scenarios = chosen('scenario', SCENARIOS, name === undefined ? undefined : [name]);
      const uapis = chosen('UAPI', UAPIS, options.uapi);
      const results: ScenarioResult[] = [];
      for (const scenario of scenarios)
        for (const uapi of uapis) results.push(await runScenario(scenario, uapi));
      const { terminal } = context;
      if (options.json) terminal.document(JSON.stringify(documentOf(scenarios, uapis, results)));
      else if (name === undefined) overview(scenarios, uapis, results, terminal);
      else {
        const [scenario] = scenarios;
        describe(scenario!, results, { terminal, traces: options.uapi !== undefined });
      }
      // What fails is a result like any other.
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
  uapis: readonly UapiInUse[],
  results: readonly ScenarioResult[],
): unknown {
  return {
    scenarios: scenarios.map(({ name, title, description, source, cases }) => ({
      name,
      title,
      description,
      source,
      cases,
    })),
    uapis: uapis.map(({ name, title, status }) => ({ name, title, status })),
    results,
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
  uapis: readonly UapiInUse[],
  results: readonly ScenarioResult[],
  terminal: Terminal,
): void {
  const rows = uapis.map(({ name }) => [
    name,
    ...scenarios.map(
      ({ name: scenario }) =>
        results.find((result) => result.uapi === name && result.scenario === scenario)!.outcome,
    ),
  ]);
  const head = ['', ...scenarios.map(({ name }) => name)];
  for (const table of textTablesWithin(terminal.columns, rows, { head, indent: 0 })) {
    for (const line of table) terminal.out(line);
    terminal.out('');
  }
  const legend =
    'The worst case of each: works; needs-vmm: right if the VMM does more; slow; cannot: there is no way to ask for it; fails: with an error; hangs; silent: without one. `scenario <name>` says more.';
  for (const line of paragraph(legend, terminal.columns, 0)) terminal.out(line);
}

function describe(
  scenario: Scenario,
  results: readonly ScenarioResult[],
  { terminal, traces }: { readonly terminal: Terminal; readonly traces: boolean },
): void {
  const say = (text: string, indent: number): void => {
    for (const line of paragraph(text, terminal.columns, indent)) terminal.out(line);
  };
  say(`${scenario.title}. ${scenario.description}`, 0);
  say(`(${scenario.source})`, 0);
  for (const [name, about] of Object.entries(scenario.cases)) {
    terminal.out('');
    say(`${name}: ${about}`, 0);
    for (const { uapi, cases } of results) {
      const result = cases.find((each) => each.case === name)!;
      say(`  ${uapi.padEnd(22)} ${result.outcome.padEnd(9)} ${caseText(result)}`, 35);
      if (traces && isCounterexample(result))
        for (const line of formatScenarioTrace(result.trace)) terminal.out(`    ${line}`);
    }
  }
  if (scenario.name === 'many-vcpus') for (const line of scalingLines()) terminal.out(line);
}

const isCounterexample = ({ outcome }: CaseResult): boolean =>
  outcome === 'fails' || outcome === 'hangs' || outcome === 'silent';

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
