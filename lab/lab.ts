/*
 * Boots a real Linux with a real KVM in an emulator, runs the suites of lab/suites in it on the packed
 * library, and brings the results back.
 *   npm run lab:arm64                              all suites on the newest kernel
 *   npm run lab:arm64 -- --kernel stable           on the kernel of Debian's stable release
 *   npm run lab:x86 -- --only smoke                one suite
 */
import { Command, InvalidArgumentError, Option } from 'commander';
import { arm64 } from './arm64/target.js';
import { LabFailure, STATUS } from './machine/failure.js';
import { suitesOf, type Suite } from './machine/payload.js';
import { saveResults } from './machine/results.js';
import { runLab, type RunResult } from './machine/run.js';
import { KERNELS, type KernelChoice, type Target } from './machine/target.js';
import { x86 } from './x86/target.js';

interface Options {
  readonly kernel: KernelChoice;
  readonly only?: readonly string[];
  readonly all: boolean;
  readonly vitest: readonly string[];
  readonly memory?: number;
  readonly timeout: number;
  readonly bootTimeout: number;
  readonly env: readonly string[];
  readonly refresh: boolean;
  readonly record: boolean;
  readonly keep: boolean;
  readonly json: boolean;
}

const TARGETS: Readonly<Record<string, Target>> = { arm64, x86 };

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!/^\d+$/.test(text) || value < 1) throw new InvalidArgumentError('It takes a whole number from 1.');
  return value;
}

/** Parses the command line and runs the lab. @returns the exit status */
export async function main(root: string, args: readonly string[]): Promise<number> {
  const program = new Command('lab')
    .description('run the suites in a real Linux with a real KVM, under emulation')
    .argument('<architecture>', 'arm64 or x86')
    .addOption(new Option('--kernel <which>', "of Debian's kernels").choices(KERNELS).default('newest'))
    .option('--only <suite...>', 'only these suites')
    .option('--all', 'those too that take many minutes', false)
    .option('--vitest <path...>', "instead of suites, this repository's test files (x86 only)", [])
    .option('--memory <MiB>', 'of the machine', wholeNumber)
    .option('--timeout <seconds>', 'for the machine, from its start to its end', wholeNumber, 900)
    .option('--boot-timeout <seconds>', 'for the kernel, until it runs the first suite', wholeNumber, 240)
    .option('--env <NAME=value...>', 'environment of the suites', [])
    .option('--refresh', 'look for a newer kernel than the cached one', false)
    .option('--record', 'write the results file that the documentation is made of', false)
    .option('--keep', 'keep what was booted, to boot it by hand', false)
    .option('--json', 'one JSON document on standard output, everything else on standard error', false)
    .exitOverride()
    .action(() => {});
  try {
    program.parse([...args], { from: 'user' });
  } catch (error) {
    return (error as { exitCode: number }).exitCode === 0 ? 0 : STATUS.usage;
  }
  const options = program.opts<Options>();
  const stop = new AbortController();
  const onSignal = (name: NodeJS.Signals): void => stop.abort(new Interrupted(name));
  for (const name of SIGNALS) process.on(name, onSignal);
  try {
    return await lab(root, program.args[0]!, options, stop.signal);
  } catch (error) {
    return report(stop.signal.aborted ? stop.signal.reason : error);
  } finally {
    for (const name of SIGNALS) process.off(name, onSignal);
  }
}

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
const SIGNAL_STATUS: Readonly<Record<string, number>> = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 };

class Interrupted extends Error {
  constructor(readonly by: NodeJS.Signals) {
    super(`interrupted by ${by}`);
  }
}

function report(error: unknown): number {
  if (error instanceof Interrupted) {
    process.stderr.write(`lab: ${error.message}\n`);
    return SIGNAL_STATUS[error.by] ?? STATUS.failed;
  }
  if (!(error instanceof LabFailure)) throw error;
  process.stderr.write(`lab: ${error.message}\n${error.hint === undefined ? '' : `  ${error.hint}\n`}`);
  return error.status;
}

async function lab(
  root: string,
  architecture: string,
  options: Options,
  signal: AbortSignal,
): Promise<number> {
  const target = TARGETS[architecture];
  if (target === undefined)
    throw new LabFailure(`there is no lab for ${architecture}: arm64, x86`, { status: STATUS.usage });
  const all = options.vitest.length > 0 ? [] : await suitesOf(root, target);
  const suites = chosen(all, options);
  const out = options.json ? process.stderr : process.stdout;
  const left = all.filter((suite) => !suites.includes(suite)).map(({ name }) => name);
  if (options.only === undefined && left.length > 0)
    out.write(`lab: left out, because they take many minutes: ${left.join(', ')} (--all)\n`);
  const result = await runLab({
    root,
    target,
    suites,
    vitest: options.vitest,
    choice: options.kernel,
    memory: options.memory ?? target.memory,
    timeLimit_ms: options.timeout * 1000,
    bootLimit_ms: options.bootTimeout * 1000,
    refresh: options.refresh,
    keep: options.keep,
    environment: environmentOf(options.env),
    signal,
    say: (line) => out.write(`lab: ${line}\n`),
    onConsole: (text) => out.write(text.replaceAll('\r', '')),
  });
  const { outcome } = result;
  if (options.record) out.write(`lab: results in ${await saveResults(root, target, result)}\n`);
  summarise(result, (line) => out.write(`${line}\n`));
  const counts = outcome.counts();
  if (options.json)
    process.stdout.write(
      `${JSON.stringify({ ...counts, kernel: outcome.release, package: result.facts.packageVersion, suites: outcome.suites })}\n`,
    );
  return counts.failed === 0 ? 0 : STATUS.failed;
}

function chosen(suites: readonly Suite[], { only, all }: Pick<Options, 'only' | 'all'>): readonly Suite[] {
  const names = suites.map(({ name }) => name).join(', ');
  const unknown = only?.find((name) => !suites.some((suite) => suite.name === name));
  if (unknown !== undefined)
    throw new LabFailure(`there is no suite ${unknown}: ${names}`, { status: STATUS.usage });
  if (only !== undefined) return suites.filter(({ name }) => only.includes(name));
  return suites.filter(({ long }) => all || !long);
}

function environmentOf(settings: readonly string[]): Record<string, string> {
  const wrong = settings.find((setting) => !/^\w+=/.test(setting));
  if (wrong !== undefined)
    throw new LabFailure(`--env takes NAME=value, not ${wrong}`, { status: STATUS.usage });
  return Object.fromEntries(
    settings.map((setting) => setting.split(/=(.*)/s).slice(0, 2) as [string, string]),
  );
}

function summarise({ outcome, machineSeconds }: RunResult, print: (line: string) => void): void {
  for (const [suite, { tests }] of Object.entries(outcome.suites))
    for (const { name, status, reason } of tests)
      if (status !== 'passed') print(`lab: ${status}: ${suite} > ${name}: ${reason ?? 'no reason given'}`);
  const { passed, failed, skipped } = outcome.counts();
  print(
    `lab: ${passed + failed + skipped} tests inside ${outcome.release}, ${machineSeconds} s from start to end`,
  );
  print(`${passed} passed, ${failed} failed, ${skipped} skipped`);
}
