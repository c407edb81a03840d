import { InvalidArgumentError } from 'commander';

/** Parsers of option values: each throws what commander reports as bad usage. */

export function wholeNumber(least: number, most = Number.MAX_SAFE_INTEGER): (text: string) => number {
  return (text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= least && value <= most) return value;
    const range = most === Number.MAX_SAFE_INTEGER ? `from ${least}` : `from ${least} to ${most}`;
    throw new InvalidArgumentError(`It takes a whole number ${range}.`);
  };
}

export function powerOfTwo(text: string): number {
  const value = wholeNumber(1, 65536)(text);
  if ((value & (value - 1)) === 0) return value;
  throw new InvalidArgumentError('It takes a power of two.');
}

/** A guest-physical address, hexadecimal with 0x or decimal. */
export function address(text: string): bigint {
  if (/^(0x[0-9a-f]{1,16}|\d{1,19})$/i.test(text)) return BigInt(text);
  throw new InvalidArgumentError(
    'It takes an address: 0x and up to 16 hexadecimal digits, or a decimal number.',
  );
}

export function milliseconds(text: string): number {
  const value = Number(text);
  if (/^\d+(\.\d+)?$/.test(text) && value <= 60_000) return value;
  throw new InvalidArgumentError('It takes milliseconds, from 0 to 60000.');
}
