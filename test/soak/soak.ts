/*
 * Faults by the hundred million, on every backend of this host and by foreign VMMs, with processes killed.
 *   npm run soak                                        100 million, over all subjects
 *   npm run soak -- --faults 1e6 --state soak.json      goes on with what the file has
 *   npm run soak -- --subject composite --seconds 60    one subject, for a minute
 *   npm run soak -- --subject composite --seed 77       one slice, as one that failed
 * Ctrl-C ends it after the slice that is under way. Exit status: 1 where any slice of the state has failed.
 */
import { dirname, resolve } from 'node:path';
import { mkdirSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { SUBJECTS } from '../real/histories/subjects.js';
import { compileForeignVmm, runHandler, soakKilledHandlers, soakKilledVmms } from './foreign-slice.js';
import { type SliceTask } from './messages.js';
import { soakPager } from './pager-slice.js';
import { SliceAccount, SliceFailure } from './slice-account.js';
import { runSliceProcess } from './slice-process.js';
import { SoakState } from './soak-state.js';

/** Ctrl-C waits no longer than this, and the slice's end. */
const SLICE_MS = 30_000;

interface SoakSubject {
  readonly name: string;
  readonly lack: string | undefined;
  soak(account: SliceAccount): Promise<void>;
}

const FOREIGN_LACK = SUBJECTS.find(({ name }) => name.startsWith('userfaultfd'))!.lack;
const ALL: readonly SoakSubject[] = [
  ...SUBJECTS.map((subject) => ({
    name: subject.name,
    lack: subject.lack,
    soak: (account: SliceAccount) => soakPager(subject, account),
  })),
  { name: 'foreign VMM, killed', lack: FOREIGN_LACK, soak: soakKilledVmms },
  { name: 'foreign VMM, handlers killed', lack: FOREIGN_LACK, soak: soakKilledHandlers },
];

async function runSlice(task: SliceTask): Promise<void> {
  process.once('disconnect', () => process.exit(1));
  const account = new SliceAccount(task, (message) => process.send!(message));
  try {
    await ALL.find(({ name }) => name === task.subject)!.soak(account);
    account.end();
    process.disconnect();
  } catch (error) {
    const what = error instanceof Error ? (error.stack ?? error.message) : String(error);
    account.end(error instanceof SliceFailure ? error.failure : { kind: 'error', what });
  }
}

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      faults: { type: 'string', default: '1e8' },
      slice: { type: 'string', default: '1e5' },
      state: { type: 'string', default: '.cache/soak/state.json' },
      subject: { type: 'string', multiple: true, default: [] },
      seed: { type: 'string' },
      seconds: { type: 'string', default: 'Infinity' },
      hang: { type: 'string', default: '60' },
      json: { type: 'boolean', default: false },
    },
  });
  const chosen = subjectsOf(values.subject);
  const target = numberOf('faults', values.faults) / chosen.length;
  const slice = numberOf('slice', values.slice);
  const hang_ms = numberOf('hang', values.hang) * 1000;
  const until = performance.now() + numberOf('seconds', values.seconds) * 1000;
  const seed = values.seed === undefined ? undefined : numberOf('seed', values.seed);
  const path = resolve(values.state);
  mkdirSync(dirname(path), { recursive: true });
  const state = new SoakState(path);
  let ending = false;
  process.on('SIGINT', () => {
    if (ending) process.exit(130); // what is under way is not counted
    ending = true;
    process.stderr.write('\nends after the slice that is under way\n');
  });

  while (!ending && performance.now() < until) {
    const next = chosen
      .filter(({ name }) => seed !== undefined || state.of(name).faults < target)
      .sort((a, b) => state.of(a.name).faults - state.of(b.name).faults)[0];
    if (!next) break;
    await playSlice(state, {
      subject: next.name,
      seed: seed ?? seedOf(),
      faults: slice,
      most_ms: SLICE_MS,
      hang_ms,
    });
    if (seed !== undefined) break;
  }
  if (values.json)
    process.stdout.write(
      `${JSON.stringify({ faults: state.faults, failures: state.failures, subjects: state.subjects })}\n`,
    );
  else process.stdout.write(tableOf(state));
  return state.failures > 0 ? 1 : 0;
}

const seedOf = (): number => Math.floor(Math.random() * 2 ** 31);

function numberOf(option: string, text: string): number {
  const value = Number(text);
  if (!(value >= 0)) throw new RangeError(`--${option} takes a number, not ${text}`);
  return value;
}

/** What this host can run of what was asked for; what it cannot is said. */
function subjectsOf(names: readonly string[]): readonly SoakSubject[] {
  const unknown = names.filter((name) => ALL.every((subject) => subject.name !== name));
  if (unknown.length > 0)
    throw new RangeError(
      `nothing is called ${unknown.join('; ')}. There are: ${ALL.map(({ name }) => name).join('; ')}`,
    );
  const asked = ALL.filter(({ name }) => names.length === 0 || names.includes(name));
  const noCompiler = asked.some(({ name }) => name.startsWith('foreign')) ? compileForeignVmm() : undefined;
  const chosen = asked.filter(({ name, lack }) => {
    const why = lack ?? (name.startsWith('foreign') ? noCompiler : undefined);
    if (why !== undefined) process.stderr.write(`${name}: left out: ${why}\n`);
    return why === undefined;
  });
  if (chosen.length === 0) throw new Error('there is nothing that this host can run');
  return chosen;
}

async function playSlice(state: SoakState, task: SliceTask): Promise<void> {
  const began = performance.now();
  const { isTTY } = process.stderr;
  const outcome = await runSliceProcess(task, ({ faults, kills }) => {
    if (isTTY) process.stderr.write(`\r\x1b[K${task.subject}: ${faults} faults, ${kills} kills`);
  });
  const { progress, killed, failure } = outcome;
  state.add(task.subject, { seed: task.seed, elapsed_ms: performance.now() - began, ...outcome });
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  process.stderr.write(
    `${isTTY ? '\r\x1b[K' : ''}${task.subject}, seed ${task.seed}: ${progress.faults} faults in ${seconds} s, ${progress.kills} kills` +
      `${killed ? ', killed' : ''}; in all ${state.faults}\n`,
  );
  if (!failure) return;
  process.stderr.write(`FAILED (${failure.kind}): ${failure.what}\n`);
  for (const each of progress.doing) process.stderr.write(`  under way: ${each}\n`);
  process.stderr.write(`  pager: ${JSON.stringify(progress.statistics)}\n`);
}

function tableOf(state: SoakState): string {
  const rows = Object.entries(state.subjects).map(([name, each]) => {
    const rate = each.elapsed_ms > 0 ? Math.round((each.faults / each.elapsed_ms) * 1000) : 0;
    return (
      `${name.padEnd(30)} ${String(each.faults).padStart(10)} faults, ${String(rate).padStart(6)} a second, ${each.slices} slices, ` +
      `${each.kills} kills, ${each.wrong} wrong, ${each.hangs} hangs, ${each.errors} errors\n`
    );
  });
  return `${rows.join('')}${state.faults} faults, ${state.failures} failures\n`;
}

if (process.argv[2] === 'handler') runHandler();
else if (process.argv[2] === 'slice') process.once('message', (task: SliceTask) => void runSlice(task));
else process.exitCode = await main();
