import { type CommandWords, encodeCommand, OPCODE } from 'demand-paging/arm64';
import * as fc from 'fast-check';
import { PLACE } from './geometry.js';

const U64 = (1n << 64n) - 1n;

/** A few ids, so that commands meet each other, and those at and past each limit. */
export const anyDevice = fc.oneof(
  { weight: 8, arbitrary: fc.constantFrom(0, 1, 7, 600) },
  { weight: 1, arbitrary: fc.constantFrom(8191, 8192, 16_383, 16_384, 40_000, 65_535, 65_536) },
);
export const anyEvent = fc.oneof(
  { weight: 8, arbitrary: fc.nat(5) },
  { weight: 1, arbitrary: fc.constantFrom(31, 32, 511, 512, 65_535, 65_536) },
);
export const anyIntid = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: 8192, max: 8201 }) },
  { weight: 2, arbitrary: fc.constantFrom(8256, 12_288, 20_000, 40_959, 40_960, 65_535) },
  { weight: 1, arbitrary: fc.constantFrom(0, 1, 8191, 65_536, 0xffff_ffff) },
);
export const anyCollection = fc.oneof(
  { weight: 8, arbitrary: fc.nat(2) },
  { weight: 1, arbitrary: fc.constantFrom(8191, 8192, 65_535) },
);
const anyItt = fc.oneof(
  { weight: 8, arbitrary: fc.nat(15).map(PLACE.itt) },
  { weight: 1, arbitrary: fc.nat(15).map((n) => PLACE.itt(n) + 0xf00n) },
  { weight: 1, arbitrary: fc.constantFrom(...PLACE.odd) },
);
const anyEventBits = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: 1, max: 5 }) },
  { weight: 1, arbitrary: fc.constantFrom(9, 10, 16, 17, 32) },
);
const mostly = fc.integer({ min: 0, max: 5 }).map((n) => n > 0);

/** A command for VMs whose vCPUs have these ids; most are such as a guest gives. */
export function anyCommand(vcpuIds: readonly number[]): fc.Arbitrary<CommandWords> {
  const target = fc.oneof(
    { weight: 8, arbitrary: fc.constantFrom(...vcpuIds) },
    { weight: 1, arbitrary: fc.constantFrom(99, 0xffff_ffff) },
  );
  const ids = { device: anyDevice, event: anyEvent, collection: anyCollection };
  const mapDevice = fc.record({
    kind: fc.constant('MAPD' as const),
    device: anyDevice,
    eventBits: anyEventBits,
    itt: anyItt,
    valid: mostly,
  });
  const mapCollection = fc.record({
    kind: fc.constant('MAPC' as const),
    collection: anyCollection,
    target,
    valid: mostly,
  });
  const mapInterrupt = fc.record({ kind: fc.constant('MAPTI' as const), ...ids, intid: anyIntid });
  const others = fc.oneof(
    fc.record({ kind: fc.constantFrom('MAPI' as const, 'MOVI' as const), ...ids }),
    fc.record({
      kind: fc.constantFrom('INT' as const, 'CLEAR' as const, 'DISCARD' as const, 'INV' as const),
      device: anyDevice,
      event: anyEvent,
    }),
    fc.record({ kind: fc.constant('INVALL' as const), collection: anyCollection }),
    fc.record({ kind: fc.constant('MOVALL' as const), from: target, to: target }),
    fc.record({ kind: fc.constant('SYNC' as const), target }),
  );
  const raw = fc
    .tuple(fc.constantFrom(...Object.values(OPCODE), 0, 0xff), fc.bigInt({ min: 0n, max: U64 }))
    .map(([opcode, noise]): CommandWords => [
      BigInt(opcode) | (noise & 0x7_0000_0000n),
      noise & 0x7_ffff_ffff_ffffn,
      noise & ~0x000f_ffff_0000_0000n,
      0n,
    ]);
  return fc.oneof(
    { weight: 3, arbitrary: mapDevice.map(encodeCommand) },
    { weight: 3, arbitrary: mapCollection.map(encodeCommand) },
    { weight: 8, arbitrary: mapInterrupt.map(encodeCommand) },
    { weight: 8, arbitrary: others.map(encodeCommand) },
    { weight: 1, arbitrary: raw },
  );
}
