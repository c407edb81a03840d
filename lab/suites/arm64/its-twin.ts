import assert from 'node:assert/strict';
import { release } from 'node:os';
import { after, before, test } from 'node:test';
import {
  type KernelName,
  kernelQuirks,
  type KernelQuirks,
  KERNELS,
  replayVector,
  type Vector,
} from 'demand-paging/arm64';
import { Kvm } from 'demand-paging/linux';
import * as fc from 'fast-check';
import { RAM_BYTES, vmOf } from '../../its/arbitrary/geometry.js';
import { anyHistory } from '../../its/arbitrary/history.js';
import { anyRestore, IMAGE_BYTES } from '../../its/arbitrary/image.js';
import { anyGuidedLife } from '../../its/arbitrary/guided.js';
import { GuestRam } from '../../its/guest-ram.js';
import { GicVm } from '../../its/gic-vm.js';
import { type CreateGic, recordVector, vectorLine } from '../../its/recorder.js';
import { type Script } from '../../its/script.js';
import { keepFile, record } from '../support/record.js';

/*
 * The ITS of this kernel against the library's twin of it: the same random script is played on both, and
 * every status, register, word of memory and page touched has to agree. What disagrees is shrunk and handed
 * out as a vector, to become a fixture once it is settled.
 */
const RUNS = Number(process.env['LAB_RUNS'] ?? 20);
/** For one kind of script, shrinking included: what was found by then is told. */
const SECONDS = Number(process.env['LAB_SECONDS'] ?? 60);
const SEED = process.env['LAB_SEED'];
const PATH = process.env['LAB_PATH'];
/** How many vectors of each family to hand out though they agree, for the fixtures. */
const VECTORS = Number(process.env['LAB_VECTORS'] ?? 0);

const series = /^\d+\.\d+/.exec(release())![0];
const kernel = series as KernelName;

let quirks: KernelQuirks;
let ram: GuestRam;
let kvm: Kvm;
const createGic: CreateGic = (spec, slots) => new GicVm(kvm, spec, slots);
before(async () => {
  quirks = kernelQuirks(release());
  assert.ok(series in KERNELS, `Linux ${series} has no name in KERNELS, which vectors need`);
  ram = await GuestRam.open(Math.max(RAM_BYTES, IMAGE_BYTES));
  kvm = Kvm.open();
});
after(async () => {
  kvm.close();
  await ram.close();
});

interface Tally {
  scripts: number;
  operations: number;
  faults: number;
  changedWords: number;
  failures: Record<string, number>;
}

function count(tally: Tally, vector: Vector): void {
  tally.scripts++;
  for (const step of vector.steps) {
    if (!('faults' in step)) continue;
    tally.operations++;
    tally.faults += step.faults?.length ?? 0;
    tally.changedWords += step.mem?.length ?? 0;
    if ('ret' in step && step.ret < 0) tally.failures[-step.ret] = (tally.failures[-step.ret] ?? 0) + 1;
  }
}

const named = (vector: Vector, index: number): Vector => ({
  ...vector,
  id: `${vector.family}-${kernel}-${String(index).padStart(3, '0')}`,
  index,
});

/** It touched memory, and changed some. */
const worthKeeping = ({ steps }: Vector): boolean =>
  steps.filter((step) => 'mem' in step && step.mem !== undefined).length > 3;

function agrees(name: string, family: string, scripts: fc.Arbitrary<Script>): void {
  test(`${name}: KVM and its twin agree`, () => {
    const kept: string[] = [];
    const found = `${name.replaceAll(' ', '-')}-${kernel}`;
    const tally: Tally = { scripts: 0, operations: 0, faults: 0, changedWords: 0, failures: {} };
    const property = fc.property(scripts, (script) => {
      const vector = recordVector(createGic, ram, script, kernel);
      count(tally, vector);
      const result = replayVector(vector, { quirks });
      if (result.kind === 'ok' && kept.length < VECTORS && worthKeeping(vector))
        kept.push(vectorLine(named(vector, kept.length)));
      if (result.kind === 'ok') return;
      // At once: each that is kept is smaller than the one before, whose name it has.
      keepFile(`${found}.jsonl`, `${vectorLine({ ...vector, id: found })}\n`);
      throw new Error(JSON.stringify(result.first));
    });
    const outcome = fc.check(property, {
      numRuns: RUNS,
      plugins: [fc.interruptAfterTimeLimit(SECONDS * 1000)],
      ...(SEED === undefined ? {} : { seed: Number(SEED) }),
      ...(PATH === undefined ? {} : { path: PATH, endOnFailure: true }),
    });
    if (kept.length > 0) keepFile(`${family}-${kernel}.jsonl`, `${kept.join('\n')}\n`);
    record(name, { seed: outcome.seed, ...tally });
    if (!outcome.failed) return;
    assert.fail(
      `${String((outcome.errorInstance as Error).message)}\nkept as ${found}.jsonl; ` +
        `again: LAB_SEED=${outcome.seed} LAB_PATH=${outcome.counterexamplePath}`,
    );
  });
}

/** Control attributes by number, which kernels are known to answer differently. */
const anyControls: fc.Arbitrary<Script> = fc
  .array(fc.constantFrom(0, 3, 5, 77), { minLength: 1, maxLength: 8 })
  .map((attributes) => ({
    id: 'control',
    family: 'H',
    index: 0,
    desc: 'control attributes',
    vm: vmOf([0], 1),
    mem0: [],
    steps: attributes.map((attr) => ({ op: 'its_ctrl_raw', its: 0, attr })),
  }));

/* A comparison that nothing could fail would agree just as well. */
test('a twin of another kernel is found out, and the script shrunk to what shows it', () => {
  const wrong: KernelQuirks = { ...quirks, unknownItsControl: quirks.unknownItsControl === 0 ? 6 : 0 };
  const property = fc.property(anyControls, (script) => {
    const result = replayVector(recordVector(createGic, ram, script, kernel), { quirks: wrong });
    assert.equal(result.kind, 'ok');
  });
  const outcome = fc.check(property, { numRuns: 20, seed: 1 });
  assert.ok(outcome.failed, 'nothing told the kernels apart');
  assert.deepEqual(outcome.counterexample![0].steps, [{ op: 'its_ctrl_raw', its: 0, attr: 3 }]);
});

agrees('guided lives', 'J', anyGuidedLife);
agrees('random lives', 'H', anyHistory);
agrees('random images', 'I', anyRestore);
