import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { ROOT } from './native.js';
import { type BenchResult, againstLimit } from './result.js';

const REGION_BYTES = 64 * 2 ** 30;
const ALLOWED = { value: 64, keep: 'atMost' } as const;

type State = 'bare' | 'ffi' | 'pager';

/**
 * What a pager over 64 GiB holds more than Node alone, and than Node with the native library loaded: resident
 * sizes of processes started in turns.
 */
export function measureFootprint(
  rounds: number,
  progress?: (name: string, round: number, count: number) => void,
): BenchResult[] {
  const held: Record<State, number[]> = { bare: [], ffi: [], pager: [] };
  for (let round = 0; round < rounds; round++) {
    for (const state of ['bare', 'ffi', 'pager'] as const) held[state].push(residentMiB(state));
    progress?.('memory of a pager over 64 GiB', round + 1, rounds);
  }
  const over = (base: 'bare' | 'ffi', what: string): BenchResult => {
    const each = held.pager.map((size, round) => size - held[base][round]!);
    return againstLimit(
      'memory of a pager over 64 GiB',
      { what: `over ${what}`, unit: 'MiB', each },
      ALLOWED,
    );
  };
  return [over('bare', 'bare Node'), over('ffi', 'Node with the FFI')];
}

function residentMiB(state: State): number {
  const child = join(ROOT, 'bench', 'children', 'footprint.mjs');
  const { status, stdout, stderr } = spawnSync(process.execPath, [child, state, String(REGION_BYTES)], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`the process '${state}' failed:\n${stderr}`);
  return (JSON.parse(stdout) as { resident: number }).resident / 2 ** 20;
}
