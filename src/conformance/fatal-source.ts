import { type ModuleSourceRef, type PageSource } from '../api/index.js';

export interface FatalSourceOptions {
  readonly length: number;
}

/** A source that ends the thread that reads of it: how a resolver is made to die on a real kernel. */
export function openFatalSource({ length }: FatalSourceOptions): PageSource {
  return {
    synchronous: false,
    length,
    // In a worker this ends the worker, and only its absence says so.
    read: () => process.exit(1),
  };
}

export const fatalSource = (length: number): ModuleSourceRef => ({
  module: 'demand-paging/conformance',
  export: 'openFatalSource',
  options: { length } satisfies FatalSourceOptions,
});
