import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { CannotMeasure } from './failure.js';
import { ROOT } from './native.js';
import { type BenchResult, keeps } from './result.js';
import { bootstrapMedian, median } from './statistics.js';

const REGION_BYTES = 64 * 2 ** 30;
const ALLOWED_MIB = 64;
const GOAL = { atMost: 1 } as const;

type State = 'bare' | 'ffi' | 'pager';

/**
 * What a pager over 64 GiB holds more than Node alone, and than Node with the native library loaded: resident
 * sizes of processes started in turns. The ratio is to what is allowed.
 */
export function measureFootprint(rounds: number, progress?: (name: string, round: number, count: number) => void): BenchResult[] {
  const held: Record<State, number[]> = { bare: [], ffi: [], pager: [] };
  for (let round = 0; round < rounds; round++) {
    for (const state of ['bare', 'ffi', 'pager'] as const) held[state].push(residentMiB(state));
    progress?.('memory of a pager over 64 GiB', round + 1, rounds);
  }
  return [result('bare', 'Node alone', held), result('ffi', 'Node with the FFI loaded', held)];
}

function result(base: 'bare' | 'ffi', what: string, held: Record<State, number[]>): BenchResult {
  const over = held.pager.map((size, round) => size - held[base][round]!);
  const { value, interval } = bootstrapMedian(over.map((size) => size / ALLOWED_MIB));
  return {
    name: `memory of a pager over 64 GiB, over ${what}, of ${ALLOWED_MIB} MiB allowed`,
    ratio: value,
    interval,
    goal: GOAL,
    met: keeps(interval, GOAL),
    runs: over.length,
    ours: { what: 'more than that', value: median(over), unit: 'MiB', each: over },
    reference: { what, value: median(held[base]), unit: 'MiB', each: held[base] },
  };
}

function residentMiB(state: State): number {
  const child = join(ROOT, 'bench', 'children', 'footprint.mjs');
  const { status, stdout, stderr } = spawnSync(process.execPath, [child, state, String(REGION_BYTES)], { encoding: 'utf8' });
  if (status !== 0) throw new CannotMeasure(`the process '${state}' failed:\n${stderr}`, 'It needs /dev/userfaultfd or CAP_SYS_PTRACE (run as root)');
  return (JSON.parse(stdout) as { resident: number }).resident / 2 ** 20;
}
