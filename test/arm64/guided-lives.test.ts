import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import * as fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import {
  type KernelName,
  kernelQuirks,
  type KernelQuirks,
  KERNELS,
  replayVector,
  type Vector,
} from '../../src/arm64/index.js';
import { anyGuidedLife } from '../../lab/its/arbitrary/guided.js';
import { recordVector } from '../../lab/its/recorder.js';
import { twinGic, TwinRam } from './twin-gic.js';

/*
 * The lab plays guided lives on a real KVM and on the twin. Here the twin stands in for KVM, and a twin that
 * is wrong in one thing is compared with it: within 1 000 lives each has to be found out.
 */
const RUNS = 1000;
const SEED = Number(process.env['GUIDED_SEED'] ?? 1);
const root = fileURLToPath(new URL('../../', import.meta.url));
const folder = `${root}.cache/mutants-${process.pid}`;
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** How many lives it took, or undefined if none told the two apart. */
function found(
  quirks: KernelQuirks,
  replay: (vector: Vector) => ReturnType<typeof replayVector>,
  kernel: KernelName = '7.3',
): number | undefined {
  const ram = new TwinRam();
  const property = fc.property(anyGuidedLife, (script) => {
    const vector = recordVector(twinGic(ram, quirks), ram, script, kernel);
    return replay(vector).kind === 'ok';
  });
  const { failed, numRuns } = fc.check(property, { numRuns: RUNS, seed: SEED, endOnFailure: true });
  return failed ? numRuns : undefined;
}

describe('guided lives', () => {
  it.each(Object.keys(KERNELS) as KernelName[])('%s: the twin agrees with itself', (kernel) => {
    const ram = new TwinRam();
    const property = fc.property(anyGuidedLife, (script) => {
      const vector = recordVector(twinGic(ram, KERNELS[kernel]), ram, script, kernel);
      expect(replayVector(vector).kind).toBe('ok');
    });
    fc.assert(property, { numRuns: 10, seed: SEED });
  });

  /** Each quirk by itself, on the kernel where the lives get to it. */
  const others: readonly (readonly [keyof KernelQuirks, KernelName, Partial<KernelQuirks>])[] = [
    ['walksAllLpis', '7.3', { walksAllLpis: false }],
    ['lpiOrder', '7.3', { lpiOrder: 'creation' }],
    ['rdbase', '7.3', { rdbase: 'index' }],
    ['unmapChecksRdbase', '7.3', { unmapChecksRdbase: true }],
    ['movallFilters', '7.3', { movallFilters: false }],
    ['changedTableFrees', '7.3', { changedTableFrees: false }],
    ['nextSkipsUnsavable', '6.12', { nextSkipsUnsavable: true }],
    ['nextSkipsUnsavable', '6.1', { nextSkipsUnsavable: true }],
    ['sharesLpis', '7.3', { sharesLpis: true }],
    ['disablingClearsPending', '7.3', { disablingClearsPending: false }],
    ['translationCache', '7.3', { translationCache: 'vm' }],
    ['translationCache', '6.1', { translationCache: 'its' }],
    ['changedTyper2', '6.12', { changedTyper2: 16 }],
  ];

  it.each(others)('%s of %s the other way is found out', (_, kernel, wrong) => {
    const quirks = { ...KERNELS[kernel], ...wrong };
    expect(found(KERNELS[kernel], (vector) => replayVector(vector, { quirks }), kernel)).toBeDefined();
  });

  it('an earlier release of a series is found out', () => {
    const quirks = { ...kernelQuirks('7.2.9') };
    expect(found(KERNELS['7.2'], (vector) => replayVector(vector, { quirks }), '7.2')).toBeDefined();
  });

  /** What the twin once had wrong, put back into its source. */
  const mutants: readonly (readonly [string, file: string, from: string, to: string])[] = [
    [
      'an LPI that outlives its mapping keeps its target',
      'lpi-programs.ts',
      'lpis.target[slot] = target;',
      'void target;',
    ],
    [
      'MAPD V=0 frees both devices of an id',
      'its-commands.ts',
      "if (mode !== 'kvm' && status === 0) drop();\n  return status;\n}\n\nfunction* mapCollection",
      'if (status === 0) drop();\n  return status;\n}\n\nfunction* mapCollection',
    ],
    [
      'a write to a page that was read waits for the flush',
      'windows.ts',
      'return window.writable || this.#keepsBefore;',
      'return window.known || this.#keepsBefore;',
    ],
    ['a removed entry stays', 'device.ts', 'this.#rows[row * COLUMNS] = GONE;', 'void GONE;'],
  ];

  it.each(mutants)('%s: found out', async (name, file, from, to) => {
    const own = `${folder}/${file}-${name.length}`;
    mkdirSync(own, { recursive: true });
    cpSync(`${root}src/arm64`, `${own}/arm64`, { recursive: true });
    cpSync(`${root}src/api`, `${own}/api`, { recursive: true });
    const source = readFileSync(`${own}/arm64/${file}`, 'utf8');
    expect(source.split(from)).toHaveLength(2);
    writeFileSync(`${own}/arm64/${file}`, source.replace(from, to));
    const mutant = (await import(/* @vite-ignore */ `${own}/arm64/replay.ts`)) as {
      replayVector: typeof replayVector;
    };
    expect(found(KERNELS['7.3'], (vector) => mutant.replayVector(vector))).toBeDefined();
  });
});
