/*
 * Measures the library against a handler written in C, and its memory against Node alone.
 *   npm run bench                            everything, as a table
 *   npm run bench -- --json                  the same for programs
 *   npm run bench -- population --rounds 5   one figure, roughly
 *   npm run bench -- kvm-guest               guests on KVM only
 */
import { Command, InvalidArgumentError } from 'commander';
import { userfaultfd } from 'demand-paging/backends/userfaultfd';
import { CannotMeasure } from './measure/failure.js';
import { measureFootprint } from './measure/footprint.js';
import { describeHost, hostLine } from './measure/host.js';
import { guestsLacking, measureKvmGuest } from './measure/kvm-guest.js';
import { NativePrograms } from './measure/native.js';
import { PAGING_NAMES, measurePaging } from './measure/paging.js';
import { type BenchResult, resultTable } from './measure/result.js';
import { measureScaling } from './measure/scaling.js';

const SCALING = 'scaling';
const FOOTPRINT = 'memory';
const ITS = 'its-restore';
const GUEST = 'kvm-guest';
const NAMES = [...PAGING_NAMES, SCALING, FOOTPRINT, ITS, GUEST];
const FOOTPRINT_ROUNDS = 5;
const SEED = 7;

interface Options {
  readonly json: boolean;
  readonly rounds: number;
  readonly pages: number;
  readonly guestMib: number;
  readonly selftest?: string;
}

function wholeNumber(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1) throw new InvalidArgumentError('it takes a whole number from 1');
  return value;
}

function checkNames(names: readonly string[]): void {
  const unknown = names.filter((name) => !NAMES.includes(name));
  if (unknown.length > 0)
    throw new CannotMeasure(`nothing is called ${unknown.join(', ')}`, `There are ${NAMES.join(', ')}`);
}

function checkHost(): void {
  const lacking = userfaultfd()
    .probe()
    .list.find(({ met }) => !met);
  if (lacking)
    throw new CannotMeasure(`userfaultfd is unavailable: ${lacking.what}: ${lacking.found}`, lacking.remedy);
}

function progress(name: string, round: number, count: number): void {
  if (process.stderr.isTTY)
    process.stderr.write(`\r\x1b[K${round === count ? '' : `${name}: ${round} of ${count}`}`);
  else if (round === count) process.stderr.write(`${name}: measured\n`);
}

/** Guests are left out, with a word, where there can be none; unless they were asked for. */
function canRunGuests(names: readonly string[]): boolean {
  const lacking = guestsLacking();
  if (!lacking) return true;
  if (names.includes(GUEST)) throw new CannotMeasure(`no guest can run: ${lacking.what}`, lacking.hint);
  process.stderr.write(`${GUEST}: left out: ${lacking.what}\n`);
  return false;
}

async function measureGuests({ rounds, guestMib, selftest }: Options): Promise<BenchResult[]> {
  if (selftest === undefined)
    process.stderr.write(`${GUEST}: the kernel's own test is left out: --selftest names none\n`);
  using programs = new NativePrograms();
  return await measureKvmGuest(programs, { rounds, mebibytes: guestMib, selftest, progress });
}

async function measure(names: readonly string[], options: Options): Promise<BenchResult[]> {
  const { rounds, pages } = options;
  const chosen = (name: string): boolean => names.length === 0 || names.includes(name);
  const results: BenchResult[] = [];
  const paging = PAGING_NAMES.filter(chosen);
  if (paging.length > 0) {
    using programs = new NativePrograms();
    results.push(...(await measurePaging(programs, { pages, seed: SEED, rounds, names: paging, progress })));
  }
  if (chosen(SCALING)) {
    using programs = new NativePrograms();
    results.push(...(await measureScaling(programs, { pages, seed: SEED, rounds, progress })));
  }
  if (chosen(FOOTPRINT)) results.push(...measureFootprint(Math.min(rounds, FOOTPRINT_ROUNDS), progress));
  // Measures when it is imported; it needs no userfaultfd.
  if (chosen(ITS)) results.push(...(await import('./its-restore.js')).results);
  if (chosen(GUEST) && canRunGuests(names)) results.push(...(await measureGuests(options)));
  return results;
}

async function main(names: readonly string[], options: Options): Promise<void> {
  checkNames(names);
  if (names.some((name) => name !== ITS) || names.length === 0) checkHost();
  const host = describeHost();
  const results = await measure(names, options);
  if (options.json)
    console.log(JSON.stringify({ host, kernel: host.kernel, pages: options.pages, results }, undefined, 2));
  else console.log(`${hostLine(host)}\n${resultTable(results, !process.stdout.isTTY)}`);
}

const command = new Command('bench')
  .argument('[names...]', `what to measure: ${NAMES.join(', ')}; everything without a name`)
  .option('--json', 'machine-readable, with every run', false)
  .option('--rounds <n>', 'rounds of each comparison', wholeNumber, 21)
  .option('--pages <n>', 'pages of 4 KiB', wholeNumber, 8192)
  .option('--guest-mib <n>', 'MiB of data a vCPU, a multiple of 2', wholeNumber, 64)
  .option('--selftest <program>', "the kernel's demand_paging_test, to measure beside kvm-guest")
  .action((names: string[], options: Options) => main(names, options));

// Ended by a signal, Node would run no exit listener, and what was made would stay.
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));

command.parseAsync().catch((error: unknown) => {
  if (!(error instanceof CannotMeasure)) throw error;
  console.error(`bench: ${error.message}\n  ${error.hint}`);
  process.exitCode = 1;
});
