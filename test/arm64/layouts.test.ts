import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import * as arm64 from '../../src/arm64/index.js';
import type { CommandWords, ItsCommand, WordCodec } from '../../src/arm64/index.js';
import {
  collectionHalves,
  deviceEntry,
  deviceHalves,
  interruptHalves,
} from '../../src/arm64/table-entries.js';

const anyWord = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n });

const CODECS = {
  gicrCtlr: arm64.gicrCtlr,
  gicrTyper: arm64.gicrTyper,
  gicrPropbaser: arm64.gicrPropbaser,
  gicrPendbaser: arm64.gicrPendbaser,
  gitsCtlr: arm64.gitsCtlr,
  gitsIidr: arm64.gitsIidr,
  gitsTyper: arm64.gitsTyper,
  gitsCbaser: arm64.gitsCbaser,
  gitsQueueOffset: arm64.gitsQueueOffset,
  gitsBaser: arm64.gitsBaser,
  dte: arm64.dte,
  cte: arm64.cte,
  ite: arm64.ite,
  level1: arm64.level1,
} as unknown as Record<string, WordCodec<Record<string, never>>>;

describe('words', () => {
  for (const [name, codec] of Object.entries(CODECS)) {
    it(`${name}: every bit pattern survives decoding and encoding, reserved bits apart`, () => {
      fc.assert(
        fc.property(anyWord, (word) => {
          expect(codec.encode(codec.decode(word))).toBe(word & codec.mask);
        }),
        { numRuns: 2000 },
      );
    });

    it(`${name}: every single bit that is not reserved shows, and a field too large is refused`, () => {
      const base = JSON.stringify(codec.decode(0n), (_, v: unknown) => (typeof v === 'bigint' ? `${v}` : v));
      for (let bit = 0n; bit < 64n; bit++) {
        const decoded = JSON.stringify(codec.decode(1n << bit), (_, v: unknown) =>
          typeof v === 'bigint' ? `${v}` : v,
        );
        expect(decoded !== base).toBe(((codec.mask >> bit) & 1n) === 1n);
      }
      const fields = codec.decode(0n);
      for (const [field, value] of Object.entries(fields)) {
        if (typeof value === 'boolean') continue;
        const huge = typeof value === 'bigint' ? 1n << 63n : 2 ** 40;
        expect(() => codec.encode({ ...fields, [field]: huge } as never)).toThrow(RangeError);
      }
    });
  }

  it('are what a real KVM wrote', () => {
    expect(arm64.dte.encode({ eventBits: 8, itt: 0x800a_0000n, next: 593, valid: true })).toBe(
      0x84a2_0000_1001_4007n,
    );
    expect(arm64.dte.encode({ eventBits: 5, itt: 0x800b_0000n, next: 0, valid: true })).toBe(
      0x8000_0000_1001_6004n,
    );
    expect(arm64.ite.encode({ collection: 0, intid: 8192, next: 200 })).toBe(0x00c8_0000_2000_0000n);
    expect(arm64.ite.encode({ collection: 1, intid: 8300, next: 0 })).toBe(0x0000_0000_206c_0001n);
    expect(arm64.cte.encode({ collection: 1, target: 1, valid: true })).toBe(0x8000_0000_0001_0001n);
    expect(arm64.cte.encode({ collection: 5, target: 0xffff_ffff, valid: true })).toBe(
      0x8000_ffff_ffff_0005n,
    );
    expect(arm64.gitsTyper.decode(0x1ef71n)).toEqual({
      physicalLpis: true,
      entry_bytes: 8,
      eventBits: 16,
      deviceBits: 16,
      physicalTargetAddresses: false,
    });
    expect(arm64.gicrTyper.decode(0x3_0000_0311n)).toEqual({
      physicalLpis: true,
      last: true,
      processorNumber: 3,
      affinity: 3,
    });
  });

  it('read the same as halves', () => {
    fc.assert(
      fc.property(anyWord, (word) => {
        const [low, high] = [Number(word & 0xffff_ffffn), Number(word >> 32n)];
        const { eventBits, itt, next } = arm64.dte.decode(word | (1n << 63n));
        expect(deviceEntry(low, high)).toEqual({ eventBits, itt: Number(itt), next });
        const join = ([l, h]: readonly [number, number]): bigint => (BigInt(h) << 32n) | BigInt(l);
        expect(join(deviceHalves(eventBits, Number(itt), next))).toBe((word & arm64.dte.mask) | (1n << 63n));
        const entry = arm64.ite.decode(word);
        expect(join(interruptHalves(entry.collection, entry.intid, entry.next))).toBe(word);
        const { collection, target } = arm64.cte.decode(word);
        expect(join(collectionHalves(collection, target))).toBe((word & arm64.cte.mask) | (1n << 63n));
      }),
      { numRuns: 3000 },
    );
  });

  it('configuration bytes: all 256, bit 1 reserved', () => {
    for (let byte = 0; byte < 256; byte++) {
      expect(arm64.encodeConfiguration(arm64.decodeConfiguration(byte))).toBe(byte & ~2);
    }
    expect(() => arm64.encodeConfiguration({ enabled: true, priority: 0xa2 })).toThrow(RangeError);
  });
});

describe('sanitising', () => {
  const all = {
    propbaser: arm64.sanitisePropbaser,
    pendbaser: arm64.sanitisePendbaser,
    cbaser: arm64.sanitiseCbaser,
    baser0: (word: bigint) => arm64.sanitiseBaser(word, 'device'),
    baser1: (word: bigint) => arm64.sanitiseBaser(word, 'collection'),
  };

  for (const [name, sanitise] of Object.entries(all)) {
    it(`${name}: twice is once, and no forbidden attribute is left`, () => {
      fc.assert(
        fc.property(anyWord, (word) => {
          const clean = sanitise(word);
          expect(sanitise(clean)).toBe(clean);
          expect((clean >> 10n) & 3n).not.toBe(2n);
          const inner = name.startsWith('p') ? (clean >> 7n) & 7n : (clean >> 59n) & 7n;
          expect(inner).toBeGreaterThan(1n);
          const outer = name.startsWith('p') ? (clean >> 56n) & 7n : (clean >> 53n) & 7n;
          expect(outer).toBeLessThan(2n);
        }),
        { numRuns: 2000 },
      );
    });
  }

  it('gives what a real KVM reads back', () => {
    const ones = (1n << 64n) - 1n;
    expect(arm64.sanitisePropbaser(ones)).toBe(0x000f_ffff_ffff_ff9fn);
    expect(arm64.sanitisePendbaser(ones) & ~(1n << 62n)).toBe(0x000f_ffff_ffff_0f80n);
    expect(arm64.sanitiseBaser(0x8000_0000_8006_0000n, 'device') >> 48n).toBe(0x9907n);
    expect(arm64.sanitiseBaser(0xc000_0000_8005_0000n, 'collection') >> 62n).toBe(2n);
  });
});

describe('commands', () => {
  const u16 = fc.nat(0xffff);
  const u32 = fc.integer({ min: 0, max: 0xffff_ffff });
  const event = { device: u32, event: u32 };
  const anyCommand: fc.Arbitrary<ItsCommand> = fc.oneof(
    fc.record({
      kind: fc.constant('MAPD' as const),
      device: u32,
      eventBits: fc.integer({ min: 1, max: 32 }),
      itt: fc.bigInt({ min: 0n, max: (1n << 44n) - 1n }).map((unit) => unit << 8n),
      valid: fc.boolean(),
    }),
    fc.record({ kind: fc.constant('MAPC' as const), collection: u16, target: u32, valid: fc.boolean() }),
    fc.record({ kind: fc.constant('MAPTI' as const), ...event, intid: u32, collection: u16 }),
    fc.record({ kind: fc.constantFrom('MAPI' as const, 'MOVI' as const), ...event, collection: u16 }),
    fc.record({ kind: fc.constantFrom('INT', 'CLEAR', 'DISCARD', 'INV'), ...event }),
    fc.record({ kind: fc.constant('INVALL' as const), collection: u16 }),
    fc.record({ kind: fc.constant('MOVALL' as const), from: u32, to: u32 }),
    fc.record({ kind: fc.constant('SYNC' as const), target: u32 }),
  );

  it('survive encoding and decoding', () => {
    fc.assert(
      fc.property(anyCommand, (command) => {
        expect(arm64.decodeCommand(arm64.encodeCommand(command))).toEqual(command);
        const view = new DataView(arm64.commandBytes(command).buffer);
        const words = [0, 8, 16, 24].map((at) => view.getBigUint64(at, true)) as unknown as CommandWords;
        expect(words).toEqual(arm64.encodeCommand(command));
      }),
      { numRuns: 2000 },
    );
  });

  it('of any four words decode to a command that means the same, or to an unknown opcode', () => {
    const kinds = new Set<string>();
    fc.assert(
      fc.property(fc.nat(0x1f), anyWord, anyWord, anyWord, anyWord, (opcode, dw0, dw1, dw2, dw3) => {
        const words = [(dw0 & ~0xffn) | BigInt(opcode), dw1, dw2, dw3] as const;
        const command = arm64.decodeCommand(words);
        kinds.add(command.kind);
        if (command.kind === 'unknown') {
          expect(Object.values(arm64.OPCODE) as number[]).not.toContain(command.opcode);
        } else {
          expect(arm64.decodeCommand(arm64.encodeCommand(command))).toEqual(command);
          expect(command.kind in arm64.OPCODE).toBe(true);
        }
      }),
      { numRuns: 3000 },
    );
    expect(kinds.size).toBe(13);
  });
});
