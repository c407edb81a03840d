declare const space: unique symbol;

type Address<Space extends string> = bigint & { readonly [space]: Space };

/** A guest-physical address, in bytes. Branded: it does not mix with {@link Hva} or {@link FileOffset}. */
export type Gpa = Address<'guest-physical'>;

/**
 * A host-virtual address, in bytes. It belongs to one address space: an {@link Hva} of another
 * process says nothing about memory that can be reached from here.
 */
export type Hva = Address<'host-virtual'>;

/** An offset into a page source or a memory file, in bytes. */
export type FileOffset = Address<'file-offset'>;

/**
 * A page's place in a {@link MemoryLayout}: regions are numbered through, page after page, from 0.
 * A word of our own; what is shared between isolates and what a batch carries speaks of pages so.
 */
export type PageIndex = number;

const LIMIT = 1n << 64n;

function address(value: bigint | number, what: string): bigint {
  if (typeof value === 'number' && !Number.isSafeInteger(value)) {
    throw new RangeError(`${what} ${value} is not an integer that a number can hold exactly; pass a bigint`);
  }
  const wide = BigInt(value);
  if (wide < 0n || wide >= LIMIT) throw new RangeError(`${what} ${wide} is outside 64 bits`);
  return wide;
}

/** Brands a guest-physical address. Throws RangeError outside 64 bits or for an inexact number. */
export const gpa = (value: bigint | number): Gpa => address(value, 'guest-physical address') as Gpa;

/** Brands a host-virtual address. Throws RangeError outside 64 bits or for an inexact number. */
export const hva = (value: bigint | number): Hva => address(value, 'host-virtual address') as Hva;

/** Brands a file offset. Throws RangeError outside 64 bits or for an inexact number. */
export const fileOffset = (value: bigint | number): FileOffset => address(value, 'file offset') as FileOffset;

/** A stretch of one address space: `length` bytes from `start`. */
export interface AddressRange<A extends bigint> {
  readonly start: A;
  readonly length: bigint;
}

export type GpaRange = AddressRange<Gpa>;
export type HvaRange = AddressRange<Hva>;

/** `count` pages of a layout from page `first`. */
export interface PageRange {
  readonly first: PageIndex;
  readonly count: number;
}

/** An address as kernel logs print it. */
export const hex = (value: bigint | number): string => `0x${value.toString(16)}`;
