import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { type Leaks } from './restore-job.js';

/** What this process has of the kernel's. */
export interface Holdings {
  /** What each descriptor is of. */
  readonly descriptors: readonly string[];
  readonly threads: number;
}

/** Counts them; undefined where there is no /proc. */
export async function holdings(): Promise<Holdings | undefined> {
  openStandardStreams();
  try {
    await stat('/proc/self'); // starts libuv's pool of threads, which stays
    return {
      descriptors: readdirSync('/proc/self/fd').flatMap(targetOf),
      threads: readdirSync('/proc/self/task').length,
    };
  } catch {
    return undefined;
  }
}

/** What is there beyond `before`: mappings over guest memory, and processes that should be gone. */
export async function leaksSince(
  before: Holdings | undefined,
  memory: readonly { readonly start: bigint; readonly length: bigint }[],
  processes: readonly number[],
): Promise<Leaks | undefined> {
  const now = await holdings();
  if (!before || !now) return undefined;
  const maps = readFileSync('/proc/self/maps', 'utf8').split('\n');
  const mapped = memory.filter((range) => maps.some((line) => covers(line, range)));
  const left = [...now.descriptors];
  for (const target of before.descriptors) {
    const at = left.indexOf(target);
    if (at >= 0) left.splice(at, 1);
  }
  return {
    descriptors: left.length,
    descriptorsOf: left,
    threads: Math.max(0, now.threads - before.threads),
    mappings: mapped.length,
    processes: processes.filter(isAlive).length,
  };
}

/**
 * Node makes each standard stream at its first use (the first worker thread uses two), and keeps it: for a terminal it
 * opens that anew, a descriptor that is no leak.
 */
function openStandardStreams(): void {
  void [process.stdin, process.stdout, process.stderr];
}

/** None for the descriptor of the listing itself, which is closed by now. */
function targetOf(fd: string): string[] {
  try {
    return [readlinkSync(`/proc/self/fd/${fd}`)];
  } catch {
    return [];
  }
}

/** Whether a line of maps is one mapping over all of a range: what is mapped there anew is smaller. */
function covers(line: string, { start, length }: { start: bigint; length: bigint }): boolean {
  const [, from, to] = /^([0-9a-f]+)-([0-9a-f]+) /.exec(line) ?? [];
  return from !== undefined && start >= BigInt(`0x${from}`) && start + length <= BigInt(`0x${to}`);
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

/** Whether nothing is left. */
export const isClean = ({ descriptors, threads, mappings, processes }: Leaks): boolean =>
  descriptors + threads + mappings + processes === 0;
