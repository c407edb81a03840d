/** The module by whose name a resolver's isolate imports these sources. */
export const MODULE = 'demand-paging/sources';

/** Refuses what is not a number of bytes. Throws RangeError. */
export function checkExtent(what: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 0)
    throw new RangeError(`${what} is ${value}; it takes a whole number of bytes`);
}
