import { type CField, type CIoctl, type CStruct, type CType } from './definition.js';

const BYTES: Readonly<Record<CType, number>> = { u8: 1, u16: 2, u32: 4, u64: 8, s32: 4, s64: 8 };
const DIRECTION = { none: 0, w: 1, r: 2, wr: 3 } as const;

/** The letter of KVM's ioctls. */
export const KVMIO = 0xae;

export const bytesOf = ({ type, count = 1 }: CField): number => BYTES[type] * count;

/** Offsets of a structure's fields, which follow each other without gaps, and its size. */
export function layOut({ fields }: CStruct): {
  readonly offsets: ReadonlyMap<string, number>;
  readonly size: number;
} {
  const offsets = new Map<string, number>();
  let size = 0;
  for (const field of fields) {
    offsets.set(field.name, size);
    size += bytesOf(field);
  }
  return { offsets, size };
}

/**
 * Refuses a structure that 32-bit and 64-bit user space would lay out differently, or that has bytes no field
 * named: each field lies at a multiple of its own size, the whole is a multiple of 8. Throws RangeError.
 * Source: Documentation/process/botching-up-ioctls.rst.
 */
export function checkStruct(struct: CStruct): void {
  if (struct.fields.length === 0) throw new RangeError(`struct ${struct.name} has no fields`);
  const { offsets, size } = layOut(struct);
  if (offsets.size !== struct.fields.length)
    throw new RangeError(`struct ${struct.name} names a field twice`);
  for (const { name, type, count = 1 } of struct.fields) {
    if (!(Number.isInteger(count) && count > 0))
      throw new RangeError(`${struct.name}.${name} has ${count} elements`);
    const offset = offsets.get(name)!;
    if (offset % BYTES[type] !== 0)
      throw new RangeError(
        `${struct.name}.${name} is a ${type} at offset ${offset}; pad explicitly before it`,
      );
  }
  if (size % 8 !== 0)
    throw new RangeError(`struct ${struct.name} has ${size} bytes; pad it to a multiple of 8`);
}

/** The 32-bit number of an ioctl, as _IOC() of asm-generic makes it. */
export function ioctlNumber(
  { direction, type = KVMIO, number }: CIoctl,
  struct: CStruct | undefined,
): number {
  const size = struct ? layOut(struct).size : 0;
  return ((DIRECTION[direction] << 30) | (size << 16) | (type << 8) | number) >>> 0;
}
