import { fork } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { setTimeout as after } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { mulberry32 } from '../../src/accessors/walk.js';
import { type Failure, type Progress, type SliceMessage, type SliceTask } from './messages.js';

/** One slice in so many is killed, within so long. */
const KILLED_ONE_IN = 16;
const KILLED_WITHIN_MS = 10_000;
/** A slice that says nothing for so long beyond what an operation may take stands, too. */
const SILENCE_MS = 30_000;
const ENDS_WITHIN_MS = 10_000;

const NOTHING: Progress = { faults: 0, reads: 0, kills: 0, doing: [], statistics: undefined };

export interface SliceOutcome {
  readonly progress: Progress;
  readonly killed: boolean;
  readonly failure: Failure | undefined;
}

/**
 * Runs a slice in a process of its own, now and then killed, and sees that every process that it has started
 * ends with it. The process has a group of its own: what a terminal signals does not end a slice.
 */
export async function runSliceProcess(
  task: SliceTask,
  heard: (progress: Progress) => void,
): Promise<SliceOutcome> {
  const random = mulberry32(~task.seed);
  const child = fork(fileURLToPath(import.meta.url), ['slice'], {
    detached: true,
    serialization: 'advanced',
  });
  const group = child.pid!;
  let progress = NOTHING;
  let told: SliceMessage['kind'] | undefined;
  let failure: Failure | undefined;
  let killed = false;
  let spoke = performance.now();
  const kill = (): void => void child.kill('SIGKILL');
  child.on('message', (message: SliceMessage) => {
    ({ kind: told, progress } = message);
    spoke = performance.now();
    heard(progress);
    if (message.kind !== 'failed') return;
    failure ??= message.failure;
    kill();
  });
  const watch = setInterval(() => {
    if (performance.now() - spoke < task.hang_ms + SILENCE_MS) return;
    failure ??= { kind: 'hang', what: 'the process of the slice says nothing any more' };
    kill();
  }, 1000);
  const killer =
    random() * KILLED_ONE_IN < 1
      ? setTimeout(() => {
          killed = true;
          kill();
        }, random() * KILLED_WITHIN_MS)
      : undefined;
  const ended = new Promise<string>((resolve) =>
    child.once('close', (code, signal) => resolve(String(signal ?? code))),
  );
  child.send(task);
  const how = await ended;
  clearInterval(watch);
  clearTimeout(killer);
  if (told !== 'done' && !killed)
    failure ??= { kind: 'error', what: `the process of the slice ended with ${how}` };
  const left = await leftOf(group);
  if (left.length > 0) {
    failure ??= {
      kind: 'hang',
      what: `after the slice ${killed ? 'was killed' : 'ended'} processes are left: ${left.join('; ')}`,
    };
    process.kill(-group, 'SIGKILL');
  }
  return { progress, killed, failure };
}

/** Processes of a group that do not end. */
async function leftOf(group: number): Promise<readonly string[]> {
  const until = performance.now() + ENDS_WITHIN_MS;
  for (;;) {
    const left = processesOf(group);
    if (left.length === 0 || performance.now() > until) return left;
    await after(50);
  }
}

function processesOf(group: number): readonly string[] {
  return readdirSync('/proc').flatMap((name) => {
    if (!/^\d+$/.test(name)) return [];
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'latin1');
      const [state, , ofGroup] = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
      if (Number(ofGroup) !== group || state === 'Z') return [];
      return [`${name} ${stat.slice(stat.indexOf('('), stat.lastIndexOf(')') + 1)} ${state}`];
    } catch {
      return []; // it has ended
    }
  });
}
