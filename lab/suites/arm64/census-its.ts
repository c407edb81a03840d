import assert from 'node:assert/strict';
import { release } from 'node:os';
import { after, before, test, type TestContext } from 'node:test';
import { type KernelName, replayVector, type Vector } from 'demand-paging/arm64';
import { Kvm } from 'demand-paging/linux';
import * as fc from 'fast-check';
import { gicLife } from '../../census/gic-life.js';
import { type Access } from '../../census/accesses.js';
import { rowOf, sumAccesses } from '../../census/table.js';
import { type TracedOperation, TracedRam } from '../../census/traced-ram.js';
import { type Detail, Tracer } from '../../census/tracer.js';
import { RAM_BYTES } from '../../its/arbitrary/geometry.js';
import { anyHistory } from '../../its/arbitrary/history.js';
import { anyRestore, IMAGE_BYTES } from '../../its/arbitrary/image.js';
import { GuestRam } from '../../its/guest-ram.js';
import { GicVm } from '../../its/gic-vm.js';
import { recordVector } from '../../its/recorder.js';
import { type Script } from '../../its/script.js';
import { record } from '../support/record.js';

/*
 * Which functions of this kernel use guest memory while an ITS lives: recorded by probes, apart from
 * userfaultfd and from the library, and compared with both.
 */
const RUNS = Number(process.env['LAB_RUNS'] ?? 10);
const TIME_LIMIT_MS = 20_000;
const kernel = /^\d+\.\d+/.exec(release())![0] as KernelName;

let ram: GuestRam;
let kvm: Kvm;
before(async () => {
  ram = await GuestRam.open(Math.max(RAM_BYTES, IMAGE_BYTES));
  kvm = Kvm.open();
});
after(async () => {
  kvm.close();
  await ram.close();
});

interface Played {
  readonly vector: Vector;
  readonly operations: readonly (TracedOperation & { readonly op: string })[];
}

/** Plays a script and gives each operation's trace with its name. */
function play(script: Script, by: Tracer): Played {
  const traced = new TracedRam(ram, by);
  const vector = recordVector((spec, slots) => new GicVm(kvm, spec, slots), traced, script, kernel);
  assert.equal(traced.lost, 0, 'the trace has lost entries');
  const named = vector.steps.filter((step) => 'faults' in step);
  assert.equal(named.length, traced.operations.length);
  const operations = traced.operations.map((operation, at) => ({ ...operation, op: named[at]!.op }));
  return { vector, operations };
}

/** The pages that the kernel's functions name are those that it waited for, one by one and in order. */
function assertWitnessed({ operations }: Played): void {
  for (const { op, effects, census } of operations) {
    const faults = effects.faults.map(([page, kind]) => `${kind} 0x${page.toString(16)}`);
    const touched = census.touched.map(({ page, kind }) => `${kind} 0x${page.toString(16)}`);
    assert.deepEqual(touched, faults, op);
  }
}

function open(context: TestContext, detail: Detail): Tracer | undefined {
  const tracer = Tracer.open(detail);
  if (typeof tracer !== 'string') return tracer;
  context.skip(tracer);
  return undefined;
}

test('every use of guest memory in the life of an ITS waits in userfaultfd', (context) => {
  using by = open(context, 'census');
  if (by === undefined) return;
  const accesses: (readonly Access[])[] = [];
  for (const script of [gicLife(false), gicLife(true)]) {
    const played = play(script, by);
    assert.equal(replayVector(played.vector).kind, 'ok');
    assertWitnessed(played);
    for (const op of ['restore_tables', 'save_tables', 'save_pending', 'cmds', 'gicr_set'])
      assert.ok(
        played.operations.some((each) => each.op === op && each.census.touched.length > 0),
        `${op} touched nothing: it proves nothing`,
      );
    accesses.push(...played.operations.map(({ census }) => census.accesses));
  }
  const all = sumAccesses(accesses);
  record('accesses', all.map(rowOf));
  record('functions watched', by.watched.length);
  if (by.refused.length > 0) record('functions that may not be probed', by.refused);
  assert.deepEqual(all.filter(({ slipped }) => slipped > 0).map(rowOf), []);
});

// That the library's twin touches these same pages in random scripts, too, is for the suite its-twin to show.
test('in random scripts, the pages that the kernel names are those that userfaultfd is asked for', (context) => {
  using by = open(context, 'witness');
  if (by === undefined) return;
  const tally = { scripts: 0, operations: 0, pages: 0 };
  const property = fc.property(fc.oneof(anyRestore, anyHistory), (script) => {
    const played = play(script, by);
    assertWitnessed(played);
    tally.scripts++;
    tally.operations += played.operations.length;
    tally.pages += played.operations.reduce((sum, { census }) => sum + census.touched.length, 0);
  });
  // A walk through an empty table is tens of thousands of events: what time there is decides.
  fc.assert(property, { numRuns: RUNS, interruptAfterTimeLimit: TIME_LIMIT_MS });
  record('random scripts witnessed', tally);
  assert.ok(tally.pages > 0);
});
