import { type CommandWords, encodeCommand, encodeConfiguration, GICD, GICR, GITS } from 'demand-paging/arm64';
import { BOARD } from '../../../examples/arm64-gic.js';

/*
 * The guest whose GIC is migrated: it sets its GIC up itself, by writing its registers; has one interrupt
 * active on each vCPU when it is saved, others pending; and takes the rest where it goes on. It tells what it
 * takes by stores to where there is no memory. Its MMU is off and it needs no stack.
 */
export const RAM = 0x8000_0000n;
export const RAM_BYTES = 0x20_0000;
export const PAGE = 4096;
/** MPIDR_EL1 of each vCPU. That of the second is not what KVM would give it. */
export const MPIDRS = [0x8000_0000n, 0x8000_0100n];

/** Stores to these, where there is no memory, are what the guest has to say. */
export const SAYS = { step: 0x1000_0000, takes: 0x1000_1000, done: 0x1000_2000 } as const;
/** How often a vCPU gets out of the guest before it is done: each time KVM gives it what is pending. */
export const STEPS = 64;

const KIB_64 = 0x1_0000n;
const PLACE = {
  configuration: RAM,
  pending: (vcpu: number): bigint => RAM + KIB_64 * BigInt(1 + vcpu),
  collections: (its: number): bigint => RAM + KIB_64 * BigInt(3 + its),
  queue: (its: number): bigint => RAM + KIB_64 * BigInt(5 + its),
  devices: (its: number): bigint => RAM + KIB_64 * BigInt(7 + its),
  itt: (its: number): bigint => RAM + KIB_64 * BigInt(9 + its),
  code: RAM + KIB_64 * 12n,
  vectors: RAM + KIB_64 * 13n,
  setUp: (vcpu: number): bigint => RAM + KIB_64 * BigInt(14 + vcpu),
} as const;
/** Of the vector table: an IRQ at the level that runs, with its own stack pointer. */
const IRQ = 0x280n;

/**
 *   msr vbar_el1, x0; icc_sre_el1 = 7; icc_pmr_el1 = 0xf0; icc_bpr1_el1 = 0; icc_igrpen1_el1 = 1
 *   1: ldr x3, [x2], #8; ldr x4, [x2], #8; cbz x3, 2f; str w4, [x3]; b 1b    the set-up, register by register
 *   2: msr icc_sgi1r_el1, x9; isb; str x9, [x6]                              "I am set up", an SGI sent
 *   mrs x13, icc_iar1_el1; str x13, [x8]; str x9, [x6]                       "I took": it is active now; saved here
 *   msr icc_eoir1_el1, x13; isb; msr daifclr, #2
 *   3: str x5, [x6]; subs x5, x5, #1; b.ne 3b; str x5, [x7]; b .
 */
const CODE = Uint32Array.of(
  ...[0xd518c000, 0xd28000e1, 0xd518cca1, 0xd5033fdf, 0xd2801e01, 0xd5184601, 0xd518cc7f, 0xd2800021],
  ...[0xd518cce1, 0xd5033fdf],
  ...[0xf8408443, 0xf8408444, 0xb4000063, 0xb9000064, 0x17fffffc],
  ...[0xd518cba9, 0xd5033fdf, 0xf90000c9],
  ...[0xd538cc0d, 0xf900010d, 0xf90000c9],
  ...[0xd518cc2d, 0xd5033fdf, 0xd50342ff],
  ...[0xf90000c5, 0xf10004a5, 0x54ffffc1, 0xf90000e5, 0x14000000],
);
/** mrs x10, icc_iar1_el1; str x10, [x8]; msr icc_eoir1_el1, x10; isb; eret */
const HANDLER = Uint32Array.of(0xd538cc0a, 0xf900010a, 0xd518cc2a, 0xd5033fdf, 0xd69f03e0);

/** Registers of a vCPU where it begins. */
export const startRegisters = (vcpu: number): Readonly<Record<string, bigint>> => ({
  pc: PLACE.code,
  x0: PLACE.vectors,
  x2: PLACE.setUp(vcpu),
  x5: BigInt(STEPS),
  x6: BigInt(SAYS.step),
  x7: BigInt(SAYS.done),
  x8: BigInt(SAYS.takes),
  x9: SENT[vcpu]!,
});

/**
 * What the guest has besides LPIs. Both vCPUs have the PPI; its line and the SPI's stay high until the guest
 * takes them.
 */
export const INTERRUPTS = {
  levelSpi: 40,
  edgeSpi: 41,
  lateSpi: 43,
  ppi: 20,
  /** From the other vCPU to vCPU 0, and the other way round. */
  sgis: [3, 5],
} as const;
/** ICC_SGI1R_EL1 that each vCPU writes: SGI, Aff1 and one bit of the target list. */
const SENT = [(5n << 24n) | (1n << 16n) | 1n, (3n << 24n) | 1n];
/**
 * What each vCPU has taken, and not ended, when it is saved: it has the highest priority of all that is
 * pending.
 */
export const ACTIVE: readonly number[] = [INTERRUPTS.levelSpi, INTERRUPTS.sgis[1]];

/** An event of the only device of an ITS. */
export interface Event {
  readonly its: number;
  readonly event: number;
  readonly intid: number;
  /** ICID and vCPU are the same. */
  readonly vcpu: number;
  readonly enabled: boolean;
  /** When the guest is saved. */
  readonly pending: boolean;
}

export const DEVICE = 7;
const EVENT_BITS = 5;
export const EVENTS: readonly Event[] = [0, 1].flatMap((its) =>
  Array.from({ length: 8 }, (_, n): Event => ({
    its,
    event: n * 3,
    intid: 8192 + its * 6000 + n * 700,
    vcpu: (its + n) % 2,
    enabled: n % 4 !== 3,
    pending: n < 6,
  })),
);
/** Its MAPTI is in the queue, not executed, when the guest is saved. */
export const QUEUED: Event = { its: 1, event: 30, intid: 20_000, vcpu: 0, enabled: true, pending: false };

type Write = readonly [address: bigint, value: bigint];

const wide = (address: bigint, value: bigint): Write[] => [
  [address, value & 0xffff_ffffn],
  [address + 4n, value >> 32n],
];

const PRIORITY = 0xa0;
const HIGHEST = 0x20;
const VALID = 1n << 63n;

/** Four priorities a register. */
function priorities(base: bigint, first: number, count: number, ofIntid: (intid: number) => number): Write[] {
  return Array.from({ length: count / 4 }, (_, register): Write => {
    const word = [0, 1, 2, 3].reduce((sum, n) => sum + ofIntid(first + register * 4 + n) * 2 ** (n * 8), 0);
    return [base + 0x400n + BigInt(first + register * 4), BigInt(word)];
  });
}

const bit = (intid: number): bigint => 1n << BigInt(intid % 32);

function distributorSetUp(): Write[] {
  const base = BOARD.distributor;
  const { levelSpi, edgeSpi, lateSpi } = INTERRUPTS;
  const route = (spi: number, vcpu: number): Write[] =>
    wide(base + 0x6000n + BigInt(spi * 8), MPIDRS[vcpu]! & 0xff_ffffn);
  return [
    [base + BigInt(GICD.CTLR), 0x12n],
    [base + 0x84n, 0xffff_ffffn],
    [base + 0x88n, 0xffff_ffffn],
    [base + 0xc08n, [edgeSpi, lateSpi].reduce((sum, spi) => sum + (2n << BigInt((spi - 32) * 2)), 0n)],
    ...priorities(base, 32, 64, (intid) => (ACTIVE.includes(intid) ? HIGHEST : PRIORITY)),
    ...route(levelSpi, 0),
    ...route(edgeSpi, 1),
    ...route(lateSpi, 0),
    [base + 0x104n, bit(levelSpi) | bit(edgeSpi) | bit(lateSpi)],
  ];
}

function redistributorSetUp(vcpu: number): Write[] {
  const base = BOARD.redistributors + BigInt(vcpu) * 0x2_0000n;
  const sgis = base + 0x1_0000n;
  return [
    ...wide(base + BigInt(GICR.PROPBASER), PLACE.configuration | 0x78fn),
    ...wide(base + BigInt(GICR.PENDBASER), PLACE.pending(vcpu) | 0x780n),
    [base + BigInt(GICR.CTLR), 1n],
    [sgis + 0x80n, 0xffff_ffffn],
    ...priorities(sgis, 0, 32, (intid) => (ACTIVE.includes(intid) ? HIGHEST : PRIORITY)),
    [sgis + 0x180n, 0xffff_ffffn],
    [sgis + 0x100n, bit(INTERRUPTS.ppi) | INTERRUPTS.sgis.reduce((sum, sgi) => sum | bit(sgi), 0n)],
  ];
}

function itsSetUp(its: number): Write[] {
  const base = BOARD.itses[its]!;
  return [
    ...wide(base + BigInt(GITS.CBASER), VALID | PLACE.queue(its)),
    ...wide(base + BigInt(GITS.BASER0), VALID | PLACE.devices(its)),
    ...wide(base + BigInt(GITS.BASER1), VALID | PLACE.collections(its)),
    [base + BigInt(GITS.CTLR), 1n],
    [base + BigInt(GITS.CWRITER), BigInt([...commandsOf(its)].length * 32)],
  ];
}

function* commandsOf(its: number): Generator<CommandWords> {
  for (const vcpu of MPIDRS.keys())
    yield encodeCommand({ kind: 'MAPC', collection: vcpu, target: vcpu, valid: true });
  yield encodeCommand({
    kind: 'MAPD',
    device: DEVICE,
    eventBits: EVENT_BITS,
    itt: PLACE.itt(its),
    valid: true,
  });
  for (const { event, intid, vcpu } of EVENTS.filter((each) => each.its === its))
    yield encodeCommand({ kind: 'MAPTI', device: DEVICE, event, intid, collection: vcpu });
}

/** The guest's memory when it begins. */
export function writeGuest(bytes: Uint8Array): void {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const at = (gpa: bigint): number => Number(gpa - RAM);
  const words = (gpa: bigint, list: Iterable<bigint>): void => {
    let offset = at(gpa);
    for (const word of list) {
      view.setBigUint64(offset, word, true);
      offset += 8;
    }
  };
  bytes.set(new Uint8Array(CODE.buffer), at(PLACE.code));
  bytes.set(new Uint8Array(HANDLER.buffer), at(PLACE.vectors + IRQ));
  for (const { intid, enabled } of [...EVENTS, QUEUED])
    bytes[at(PLACE.configuration) + intid - 8192] = encodeConfiguration({ enabled, priority: PRIORITY });
  for (const its of BOARD.itses.keys()) words(PLACE.queue(its), [...commandsOf(its)].flat());
  // The first vCPU sets up what both share, after the second has set its own up.
  words(PLACE.setUp(1), [...redistributorSetUp(1).flat(), 0n, 0n]);
  const shared = [...distributorSetUp(), ...redistributorSetUp(0), ...itsSetUp(0), ...itsSetUp(1)];
  words(PLACE.setUp(0), [...shared.flat(), 0n, 0n]);
}

/** Puts a command behind those that were executed; gives what GITS_CWRITER is then. */
export function queueOneMore(bytes: Uint8Array): bigint {
  const { its, event, intid, vcpu } = QUEUED;
  const end = [...commandsOf(its)].length * 32;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  encodeCommand({ kind: 'MAPTI', device: DEVICE, event, intid, collection: vcpu }).forEach((word, n) =>
    view.setBigUint64(Number(PLACE.queue(its) - RAM) + end + n * 8, word, true),
  );
  return BigInt(end + 32);
}

/** Pages that a save writes: entries of both ITSes, and pending bits of both vCPUs. */
export const TABLE_PAGES: readonly number[] = [0, 1]
  .flatMap((n) => [PLACE.itt(n), PLACE.devices(n), PLACE.collections(n), PLACE.pending(n) + 0x400n])
  .map((gpa) => Number((gpa - RAM) / BigInt(PAGE)));
