import { type ModuleSourceRef, type PageSource } from '../api/source.js';
import { checkExtent, MODULE } from './source-module.js';

export interface ZeroSourceOptions {
  readonly length: number;
}

/**
 * A source of `length` zero bytes, none of which is copied where the kernel has a page of zeros.
 * Blocks: never. Errors: RangeError for a length that is no whole number from 0.
 */
export function zero(length: number): ModuleSourceRef {
  checkExtent('length', length);
  return {
    module: MODULE,
    export: 'openZero',
    options: { length } satisfies ZeroSourceOptions,
    mayShare: true,
  };
}

/** Opens what {@link zero} names, in this isolate. */
export function openZero({ length }: ZeroSourceOptions): PageSource {
  return {
    synchronous: true,
    length,
    read(offset, into) {
      const count = Math.max(0, Math.min(into.length, length - offset));
      return { length: count, zeros: [{ start: 0, length: count }] };
    },
  };
}
