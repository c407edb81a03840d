import { describe, expect, it } from 'vitest';
import { type FileOffset, type Gpa, type Hva, fileOffset, gpa, hex, hva } from '../../src/api/index.js';

const takesGpa = (address: Gpa): bigint => address;
const takesHva = (address: Hva): bigint => address;
const takesOffset = (offset: FileOffset): bigint => offset;

describe('addresses', () => {
  it('of two kinds, and a plain bigint: none is assignable to another', () => {
    // The type checker judges these lines: without an error in each, `tsc` fails.
    // @ts-expect-error a host-virtual address is no guest-physical one
    takesGpa(hva(0));
    // @ts-expect-error a file offset is no host-virtual address
    takesHva(fileOffset(0));
    // @ts-expect-error a guest-physical address is no file offset
    takesOffset(gpa(0));
    // @ts-expect-error a bare bigint has no address space
    takesGpa(0n);
    // @ts-expect-error arithmetic leaves the address space; brand the result
    takesGpa(gpa(0) + 1n);
    expect(takesGpa(gpa(7))).toBe(7n);
  });

  it('of 64 bits: kept exactly; beyond them: refused', () => {
    expect(gpa((1n << 64n) - 1n)).toBe((1n << 64n) - 1n);
    expect(() => gpa(1n << 64n)).toThrow(RangeError);
    expect(() => hva(-1)).toThrow(RangeError);
    expect(() => fileOffset(2 ** 53)).toThrow(/bigint/);
    expect(() => gpa(1.5)).toThrow(RangeError);
    expect(hex(gpa(0x8000_0000))).toBe('0x80000000');
  });
});
