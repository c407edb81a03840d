import { GICD, GICR, GITS, level1 } from 'demand-paging/arm64';
import * as fc from 'fast-check';
import { type ScriptStep } from '../script.js';
import { BLOCKS, PLACE } from './geometry.js';

const U64 = (1n << 64n) - 1n;
const VALID = 1n << 63n;
const INDIRECT = 1n << 62n;
const CACHEABLE = 0x780n;
const ID_BITS = 0xfn;

/** How a VM is set up: which registers are written, and where a table is two-level. */
export interface Setup {
  readonly indirect: boolean;
  readonly devicePages: number;
  readonly forwarding: boolean;
  /** One bit a step: it is left out. */
  readonly skipped: bigint;
}

export const anySetup: fc.Arbitrary<Setup> = fc.record({
  indirect: fc.boolean(),
  devicePages: fc.integer({ min: 1, max: 2 }),
  forwarding: fc.boolean(),
  skipped: fc.oneof(
    { weight: 4, arbitrary: fc.constant(0n) },
    { weight: 1, arbitrary: fc.nat(40).map((bit) => 1n << BigInt(bit)) },
  ),
});

/**
 * The registers in the order in which a guest, or a VMM that restores, writes them. ITSes are enabled at the
 * end.
 */
export function setupSteps(setup: Setup, vcpus: number, itses: number): ScriptStep[] {
  const steps: ScriptStep[] = [];
  for (let cpu = 0; cpu < vcpus; cpu++) {
    const set = (off: number, val: bigint, size: 4 | 8): void =>
      void steps.push({ op: 'gicr_set', cpu, off: BigInt(off), val, size });
    set(GICR.PROPBASER, PLACE.configuration | CACHEABLE | ID_BITS, 8);
    set(GICR.PENDBASER, PLACE.pending(cpu) | CACHEABLE, 8);
    set(GICR.CTLR, 1n, 4);
  }
  if (setup.forwarding) steps.push({ op: 'gicd_set', off: BigInt(GICD.CTLR), val: 0x12n, size: 4 });
  for (let its = 0; its < itses; its++) {
    const set = (off: number, val: bigint): void =>
      void steps.push({ op: 'its_set', its, off: BigInt(off), val });
    set(GITS.CBASER, VALID | PLACE.queue(its));
    const size = BigInt(setup.devicePages - 1);
    set(GITS.BASER0, VALID | (setup.indirect ? INDIRECT : 0n) | PLACE.devices(its) | size);
    set(GITS.BASER1, VALID | PLACE.collections(its));
  }
  return steps.filter((_, at) => ((setup.skipped >> BigInt(at)) & 1n) === 0n);
}

export const enableIts = (its: number): ScriptStep => ({ op: 'its_set', its, off: 0n, val: 1n });

/** Level-1 entries of two-level device tables: all blocks but the third. */
export const level1Words = (itses: number): (readonly [bigint, bigint])[] =>
  Array.from({ length: itses }, (_, its) =>
    Array.from({ length: BLOCKS }, (_unused, n): readonly [bigint, bigint] => [
      PLACE.devices(its) + BigInt(n * 8),
      level1.encode({ address: PLACE.block(its, n), valid: n !== 2 }),
    ]),
  ).flat();

const noise = fc.bigInt({ min: 0n, max: U64 });

/**
 * A sensible value, that with bits flipped, or anything. Tables and queues stay small: a big one takes
 * minutes.
 */
function anyValue(sensible: bigint, small: bigint): fc.Arbitrary<bigint> {
  const value = fc.oneof(
    { weight: 3, arbitrary: fc.constant(sensible) },
    { weight: 2, arbitrary: fc.nat(63).map((bit) => sensible ^ (1n << BigInt(bit))) },
    { weight: 1, arbitrary: noise },
    { weight: 1, arbitrary: fc.constantFrom(...PLACE.odd).map((address) => VALID | address) },
  );
  return value.map((bits) => bits & ~small);
}

const EXTENT = 0xfen;

export function anyRegisterStep(vcpus: number, itses: number): fc.Arbitrary<ScriptStep> {
  const its = fc.nat(itses - 1);
  const cpu = fc.nat(vcpus - 1);
  const itsSet = its.chain((at) =>
    fc
      .oneof(
        fc.record({ off: fc.constant(GITS.CTLR), val: fc.constantFrom(0n, 1n, 0x8000_0000n) }),
        fc.record({ off: fc.constant(GITS.CBASER), val: anyValue(VALID | PLACE.queue(at), EXTENT) }),
        fc.record({
          off: fc.constant(GITS.CWRITER),
          val: fc.constantFrom(0n, 0x20n, 0x41n, 0xfe0n, 0x1000n),
        }),
        fc.record({ off: fc.constant(GITS.CREADR), val: fc.constantFrom(0n, 0x20n, 0x41n, 0xfe0n, 0x1000n) }),
        fc.record({ off: fc.constant(GITS.BASER0), val: anyValue(VALID | PLACE.devices(at), EXTENT) }),
        fc.record({
          off: fc.constant(GITS.BASER0),
          val: anyValue(VALID | INDIRECT | PLACE.devices(at), EXTENT),
        }),
        fc.record({ off: fc.constant(GITS.BASER1), val: anyValue(VALID | PLACE.collections(at), EXTENT) }),
        fc.record({ off: fc.constantFrom(GITS.IIDR, GITS.TYPER, 0x110, 0x138), val: noise }),
        fc.record({ off: fc.constantFrom(0x2, 0x84, 0x98, 0x140, 0x1000, 0xffcc), val: noise }),
      )
      .map(({ off, val }): ScriptStep => ({ op: 'its_set', its: at, off: BigInt(off), val })),
  );
  const itsGet = fc
    .record({ its, off: fc.constantFrom(0, 4, 8, 0x80, 0x84, 0x98, 0x110, 0x140, 0xffd0, 0xffe8, 0xfffc) })
    .map(({ its: at, off }): ScriptStep => ({ op: 'its_get', its: at, off: BigInt(off) }));
  const redistributor = cpu.chain((at) =>
    fc
      .oneof(
        fc.record({
          off: fc.constant(GICR.CTLR),
          val: fc.constantFrom(0n, 1n),
          size: fc.constant(4 as const),
        }),
        fc.record({
          off: fc.constant(GICR.PROPBASER),
          val: anyValue(PLACE.configuration | CACHEABLE | ID_BITS, 0n),
          size: fc.constant(8 as const),
        }),
        fc.record({
          off: fc.constant(GICR.PENDBASER),
          val: anyValue(PLACE.pending(at) | CACHEABLE, 0n),
          size: fc.constant(8 as const),
        }),
        fc.record({
          off: fc.constant(GICR.INVLPIR),
          val: fc.constantFrom(8192n, 8193n, 12_288n, 20_000n, 5n),
          size: fc.constantFrom(4 as const, 8 as const),
        }),
        fc.record({ off: fc.constant(GICR.INVALLR), val: noise, size: fc.constant(8 as const) }),
      )
      .map(({ off, val, size }): ScriptStep => ({ op: 'gicr_set', cpu: at, off: BigInt(off), val, size })),
  );
  const distributor = fc
    .oneof(
      fc.record({ off: fc.constant(GICD.CTLR), val: fc.constantFrom(0x10n, 0x12n) }),
      fc.record({
        off: fc.constant(GICD.IIDR),
        val: fc.nat(5).map((n) => 0x4b00_043bn | (BigInt(n) << 12n)),
      }),
    )
    .map(({ off, val }): ScriptStep => ({ op: 'gicd_set', off: BigInt(off), val, size: 4 }));
  return fc.oneof(
    { weight: 4, arbitrary: itsSet },
    { weight: 1, arbitrary: itsGet },
    { weight: 3, arbitrary: redistributor },
    { weight: 1, arbitrary: distributor },
  );
}
