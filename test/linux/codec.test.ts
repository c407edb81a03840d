import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import {
  decodeUffdEvent,
  faultKind,
  load64,
  loadMask,
  loadSigned64,
  store64,
  storeMask,
  UFFD_EVENT,
  UFFD_FEATURE,
  UFFD_MSG_BYTES,
  UFFD_MSG_WORDS,
  UFFD_PAGEFAULT_FLAG,
  uffdFeatureNames,
  uffdIoctlNames,
} from '../../src/linux/index.js';

describe('64 bits in two words', () => {
  const words = new Uint32Array(4);
  const wide = new BigUint64Array(words.buffer);

  test('numbers below 2^53 are stored as the same bigint would be, and come back', () => {
    fc.assert(
      fc.property(fc.maxSafeNat(), (value) => {
        store64(words, 2, value);
        expect(wide[1]).toBe(BigInt(value));
        expect(load64(words, 2)).toBe(value);
      }),
    );
  });

  test('signed numbers come back signed: the answer -11 is not a huge length', () => {
    fc.assert(
      fc.property(fc.maxSafeInteger(), (value) => {
        wide[0] = BigInt.asUintN(64, BigInt(value));
        expect(loadSigned64(words, 0)).toBe(value);
      }),
      { examples: [[-11], [-1], [0], [-4294967296]] },
    );
  });

  test('masks keep every bit', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), (mask) => {
        storeMask(words, 0, mask);
        expect(wide[0]).toBe(mask);
        expect(loadMask(words, 0)).toBe(mask);
      }),
      { examples: [[1n << 63n], [0xffff_ffff_ffff_ffffn]] },
    );
  });
});

describe('messages', () => {
  /** A batch of one message behind another that must not be looked at. */
  function message(event: number, ...fields: bigint[]): Uint32Array {
    const bytes = new Uint8Array(2 * UFFD_MSG_BYTES).fill(0xee);
    const view = new DataView(bytes.buffer, UFFD_MSG_BYTES);
    view.setBigUint64(0, BigInt(event), true);
    [0n, 0n, 0n].forEach((zero, index) => view.setBigUint64(8 + index * 8, fields[index] ?? zero, true));
    return new Uint32Array(bytes.buffer);
  }

  const HIGH = 0x000f_ffff_ffff_f000n; // 52 bits: the highest page of an arm64 process

  test('a fault at the highest address is exact', () => {
    const words = message(UFFD_EVENT.PAGEFAULT, 1n, HIGH, 0xffff_ffffn);
    expect(words).toHaveLength(2 * UFFD_MSG_WORDS);
    expect(decodeUffdEvent(words, 1)).toEqual({
      kind: 'fault',
      fault: 'missing',
      write: true,
      address: Number(HIGH),
      thread: 0xffff_ffff,
      flags: 1,
    });
  });

  test('layout events', () => {
    expect(decodeUffdEvent(message(UFFD_EVENT.FORK, 17n), 1)).toEqual({ kind: 'fork', fd: 17 });
    const [from, to, length] = [0x7000_0000_0000n, HIGH, 1n << 40n];
    const remap = { kind: 'remap', from: Number(from), to: Number(to), length: 2 ** 40 };
    expect(decodeUffdEvent(message(UFFD_EVENT.REMAP, from, to, length), 1)).toEqual(remap);
    const range = { start: Number(from), end: Number(HIGH) };
    expect(decodeUffdEvent(message(UFFD_EVENT.REMOVE, from, HIGH), 1)).toEqual({ kind: 'remove', ...range });
    expect(decodeUffdEvent(message(UFFD_EVENT.UNMAP, from, HIGH), 1)).toEqual({ kind: 'unmap', ...range });
  });

  test.each([0, 0x11, 0x17, 0xff])('event 0x%s is UNKNOWN_EVENT, not a guess', (event) => {
    const decode = (): unknown => decodeUffdEvent(message(event), 1);
    expect(decode).toThrow(expect.objectContaining({ code: 'UNKNOWN_EVENT' }));
    expect(decode).toThrow(`0x${event.toString(16)}`);
  });

  test('the kind of a fault follows from its flags; none means missing', () => {
    const { WRITE, WP, MINOR, RWP } = UFFD_PAGEFAULT_FLAG;
    expect([0, WRITE, WP | WRITE, MINOR, MINOR | WRITE, RWP].map(faultKind)).toEqual([
      'missing',
      'missing',
      'write-protect',
      'minor',
      'minor',
      'rwp',
    ]);
  });
});

describe('masks by name', () => {
  test('features beyond the known ones are left out', () => {
    expect(uffdFeatureNames((1n << 63n) | BigInt(UFFD_FEATURE.POISON | UFFD_FEATURE.MOVE))).toEqual([
      'POISON',
      'MOVE',
    ]);
    expect(uffdFeatureNames(0x7ffffn)).toEqual(Object.keys(UFFD_FEATURE));
  });

  test('an ioctl is bit n of its number', () => {
    expect(uffdIoctlNames((1n << 63n) | 0x13n)).toEqual(['API', 'REGISTER', 'UNREGISTER', 'ZEROPAGE']);
  });
});
