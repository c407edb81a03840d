/*
 * How fast the software ITS restores, and how much it keeps. Run: npm run bench -- its-restore
 */
import { performance } from 'node:perf_hooks';
import { WINDOW_BYTES, type Answer, type Ask, type Program } from '../src/api/index.js';
import { decodeEntries, planRestore, Vgic, type PlanMemory } from '../src/arm64/index.js';
import { type BenchResult, againstLimit } from './measure/result.js';

/** The figures, as the other benchmarks give theirs. */
export const results: BenchResult[] = [];

const BASE = 0x8000_0000;
const COLLECTIONS = BASE + 0x10_0000;
const DEVICES = BASE + 0x20_0000;
const PENDING = BASE + 0x30_0000;
const CONFIGURATION = BASE + 0x100_0000;
const ITTS = BASE + 0x400_0000;
const SIZE = 0x1000_0000;
const ITS = 0x808_0000n;

const VCPUS = 8;
const bytes = new Uint8Array(SIZE);
const view = new DataView(bytes.buffer);

const put = (address: number, word: bigint): void => view.setBigUint64(address - BASE, word, true);

function answer(ask: Ask): Answer {
  switch (ask.ask) {
    case 'read': {
      const at = Number(ask.page) - BASE;
      return { answer: 'bytes', bytes: bytes.slice(at, at + WINDOW_BYTES) };
    }
    case 'write':
      bytes.set(ask.bytes, Number(ask.gpa) - BASE);
      return { answer: 'done' };
    case 'visible':
      return { answer: 'visible', visible: true };
    case 'hint':
      return { answer: 'done' };
  }
}

function run<R>(program: Program<R>): R {
  let step = program.next();
  while (step.done !== true) step = program.next(answer(step.value));
  return step.value;
}

/** `devices` devices of 2^`bits` events, all mapped, LPIs numbered through, one in eight pending. */
function build(devices: number, bits: number): number {
  bytes.fill(0);
  for (let vcpu = 0; vcpu < VCPUS; vcpu++) {
    put(COLLECTIONS + vcpu * 8, (1n << 63n) | (BigInt(vcpu) << 16n) | BigInt(vcpu));
  }
  let intid = 8192;
  for (let device = 0; device < devices; device++) {
    const itt = ITTS + device * Math.max(256, 2 ** bits * 8);
    const next = device === devices - 1 ? 0n : 1n;
    put(DEVICES + device * 8, (1n << 63n) | (next << 49n) | ((BigInt(itt) >> 8n) << 5n) | BigInt(bits - 1));
    for (let event = 0; event < 2 ** bits; event++, intid++) {
      const last = event === 2 ** bits - 1;
      put(itt + event * 8, ((last ? 0n : 1n) << 48n) | (BigInt(intid) << 16n) | BigInt(intid % VCPUS));
      bytes[CONFIGURATION - BASE + intid - 8192] = 0xa1;
      const pending = PENDING - BASE + (intid % VCPUS) * 0x4_0000 + (intid >> 3);
      if (intid % 8 === 3) bytes[pending] = bytes[pending]! | (1 << (intid & 7));
    }
  }
  return intid - 8192;
}

function prepare(mode: 'kvm' | 'transactional'): Vgic {
  const vgic = new Vgic({ vcpuIds: Array.from({ length: VCPUS }, (_, i) => i), itsBases: [ITS], mode });
  for (let vcpu = 0; vcpu < VCPUS; vcpu++) {
    run(vgic.writeRedistributorRegister(vcpu, 0x70, BigInt(CONFIGURATION) | 0x13n, 8));
    run(vgic.writeRedistributorRegister(vcpu, 0x78, BigInt(PENDING + vcpu * 0x4_0000), 8));
    run(vgic.writeRedistributorRegister(vcpu, 0, 1n, 4));
  }
  run(vgic.writeItsRegister(0, 0x100, (1n << 63n) | BigInt(DEVICES) | 7n));
  run(vgic.writeItsRegister(0, 0x108, (1n << 63n) | BigInt(COLLECTIONS)));
  return vgic;
}

/** Twice: array buffers of the first collection are only counted as gone after the second. */
function collect(): void {
  globalThis.gc?.();
  globalThis.gc?.();
}

function measure(name: string, devices: number, bits: number, mode: 'kvm' | 'transactional'): void {
  const entries = build(devices, bits);
  const image = bytes.slice();
  const rates: number[] = [];
  let best = Infinity;
  let bestCpu = Infinity;
  let heap = 0;
  let state = 0;
  for (let round = 0; round < 5; round++) {
    bytes.set(image);
    collect();
    const before = process.memoryUsage();
    const vgic = prepare(mode);
    const start = performance.now();
    const cpu = process.cpuUsage();
    const status = run(vgic.restoreTables());
    const elapsed = performance.now() - start;
    rates.push(entries / elapsed / 1000);
    best = Math.min(best, elapsed);
    const used = process.cpuUsage(cpu);
    bestCpu = Math.min(bestCpu, (used.user + used.system) / 1000);
    if (status !== 0 || vgic.lpiCount !== entries)
      throw new Error(`restore gave ${status}, ${vgic.lpiCount} LPIs`);
    collect();
    const after = process.memoryUsage();
    // Only the first round starts without an earlier one's GIC, which may not be collected yet.
    if (round === 0) heap = after.heapUsed + after.arrayBuffers - before.heapUsed - before.arrayBuffers;
    state = vgic.state_bytes; // also keeps the GIC alive across the collection
  }
  const what = `restore of ${name} (${mode})`;
  results.push(
    againstLimit(what, { what: 'entries', unit: 'M/s', each: rates }, { value: 1, keep: 'atLeast' }),
  );
  if (globalThis.gc) {
    const each = [heap / entries];
    results.push(againstLimit(what, { what: 'a LPI', unit: 'bytes', each }, { value: 200, keep: 'atMost' }));
  }
  const rate = (entries / best / 1000).toFixed(2);
  const each = globalThis.gc === undefined ? 'run with --expose-gc' : `${(heap / entries).toFixed(0)} B`;
  console.error(
    `${name} (${mode}): ${entries} entries in ${best.toFixed(1)} ms = ${rate} M/s ` +
      `(${bestCpu.toFixed(1)} ms of CPU, all threads); ` +
      `memory per LPI ${each}, of which arrays ${(state / entries).toFixed(0)} B`,
  );
}

function measureDecode(): void {
  const table = new Uint8Array(0x100_0000);
  const words = new DataView(table.buffer);
  for (let at = 0; at < table.length; at += 8) {
    words.setBigUint64(at, (1n << 48n) | (BigInt(8192 + at / 8) << 16n) | BigInt(at % 5), true);
  }
  const rates: number[] = [];
  for (let round = 0; round < 5; round++) {
    const start = performance.now();
    const decoded = decodeEntries(table);
    rates.push(table.length / 1e3 / (performance.now() - start));
    if (decoded.length !== table.length / 8) throw new Error('an entry is missing');
  }
  results.push(
    againstLimit(
      'decode of a dense 16 MiB table',
      { what: 'decoded', unit: 'MB/s', each: rates },
      { value: 50, keep: 'atLeast' },
    ),
  );
}

/** A source that answers a millisecond later. */
const farAway: PlanMemory = {
  visible: (page) => Number(page) >= BASE && Number(page) < BASE + SIZE,
  present: () => false,
  fetch: (pages) =>
    new Promise((resolve) => {
      const copies = pages.map((page) =>
        bytes.slice(Number(page) - BASE, Number(page) - BASE + WINDOW_BYTES),
      );
      setTimeout(() => resolve(copies), 1);
    }),
  release: () => undefined,
};

async function measurePlan(name: string, devices: number, bits: number): Promise<void> {
  build(devices, bits);
  const vgic = prepare('transactional');
  for (const [how, options] of [
    ['strict', {}],
    ['with speculation', { speculation: {} }],
  ] as const) {
    const start = performance.now();
    const plan = await planRestore(vgic, farAway, 0, options);
    const elapsed = performance.now() - start;
    console.error(
      `plan of ${name}, ${how}: ${plan.touched.length} pages in ${plan.rounds.length} rounds, ` +
        `${elapsed.toFixed(0)} ms at 1 ms a page and 64 in flight (one by one: ${plan.touched.length} ms or more), ` +
        `${plan.speculated.length} fetched in vain`,
    );
    plan.release();
  }
}

for (const mode of ['transactional', 'kvm'] as const) {
  measure('16 devices of 65536 events', 16, 16, mode);
  measure('1792 devices of 32 events', 1792, 5, mode);
}
measureDecode();
await measurePlan('1792 devices of 32 events', 1792, 5);
