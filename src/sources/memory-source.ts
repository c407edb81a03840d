import { DemandPagingError } from '../api/error.js';
import { type ReadAnswer } from '../api/read-answer.js';
import { type ModuleSourceRef, type PageSource } from '../api/source.js';
import { libc, Mapping } from '../linux/index.js';
import { checkExtent, MODULE } from './source-module.js';

/** Bytes at an address of this process: a mapping the VMM made and keeps while the source is in use. */
export interface NativeMemory {
  readonly address: number;
  readonly length: number;
}

export type MemorySourceOptions =
  { readonly native: NativeMemory } | { readonly bytes: SharedArrayBuffer | Uint8Array };

/**
 * Contents that are in memory already. A SharedArrayBuffer and native memory are shared with the resolvers
 * and installed from where they lie, without a copy between; a Uint8Array of ordinary memory is copied to
 * each resolver when the pager opens. Pages of 4096 zeros are told of and not installed by copy. None may
 * change, go away or be paged itself while the source is in use.
 * Blocks: never. Errors: RangeError for the bounds; TypeError for anything else.
 */
export function memory(contents: SharedArrayBuffer | Uint8Array | NativeMemory): ModuleSourceRef {
  if (contents instanceof SharedArrayBuffer || contents instanceof Uint8Array)
    return refer({ bytes: contents });
  if (typeof contents?.address !== 'number')
    throw new TypeError('memory() takes a SharedArrayBuffer, a Uint8Array or { address, length }');
  const { address, length } = contents;
  checkExtent('address', address);
  checkExtent('length', length);
  return refer({ native: { address, length } });
}

const refer = (options: MemorySourceOptions): ModuleSourceRef => ({
  module: MODULE,
  export: 'openMemory',
  options,
  mayShare: true,
});

/** Opens what {@link memory} names, in this isolate. */
export function openMemory(options: MemorySourceOptions): PageSource {
  return 'native' in options ? nativeSource(options.native) : bytesSource(options.bytes);
}

function bytesSource(given: SharedArrayBuffer | Uint8Array): PageSource {
  const bytes = given instanceof Uint8Array ? given : new Uint8Array(given);
  const source: PageSource = {
    synchronous: true,
    length: bytes.length,
    read: (offset, into) => copyOut(into, bytes.subarray(offset, offset + into.length)),
  };
  // Only shared memory stays where it is: an ordinary array may lie in the collector's heap.
  if (!(bytes.buffer instanceof SharedArrayBuffer)) return source;
  let start: number | undefined;
  return {
    ...source,
    address(offset, length) {
      if (offset + length > bytes.length || hasZeroPage(bytes.subarray(offset, offset + length)))
        return undefined;
      start ??= addressOf(bytes);
      return start === undefined ? undefined : start + offset;
    },
  };
}

function addressOf(bytes: Uint8Array): number | undefined {
  try {
    return libc().addressOf(bytes);
  } catch (error) {
    if (error instanceof DemandPagingError && error.code === 'NATIVE_UNAVAILABLE') return undefined;
    throw error;
  }
}

function nativeSource({ address, length }: NativeMemory): PageSource {
  // Looked at in windows: one view may not cover more than 4 GiB.
  const mapping = Mapping.borrow({ kind: 'anonymous', address, length, pageSize: 1, fd: undefined });
  return {
    synchronous: true,
    length,
    read(offset, into) {
      const count = Math.max(0, Math.min(into.length, length - offset));
      return count === 0 ? 0 : copyOut(into, mapping.bytes(offset, count));
    },
    address: (offset, count) =>
      offset + count <= length && !hasZeroPage(mapping.bytes(offset, count)) ? address + offset : undefined,
    close: () => mapping.dispose(),
  };
}

/** The unit in which zeros are looked for. */
const UNIT = 4096;
const ZEROS = Buffer.alloc(UNIT);

/** Copies what is not zeros, and tells what is. */
function copyOut(into: Uint8Array, bytes: Uint8Array): ReadAnswer {
  const zeros: { start: number; length: number }[] = [];
  for (let at = 0; at + UNIT <= bytes.length; at += UNIT) {
    if (!isZeroPage(bytes, at)) continue;
    const last = zeros.at(-1);
    if (last && last.start + last.length === at) last.length += UNIT;
    else zeros.push({ start: at, length: UNIT });
  }
  let done = 0;
  for (const { start, length } of [...zeros, { start: bytes.length, length: 0 }]) {
    if (start > done) into.set(bytes.subarray(done, start), done);
    done = start + length;
  }
  return zeros.length === 0 ? bytes.length : { length: bytes.length, zeros };
}

function hasZeroPage(bytes: Uint8Array): boolean {
  for (let at = 0; at + UNIT <= bytes.length; at += UNIT) if (isZeroPage(bytes, at)) return true;
  return false;
}

/** A few bytes tell most pages that are not. */
function isZeroPage(bytes: Uint8Array, at: number): boolean {
  if (bytes[at] !== 0 || bytes[at + 8] !== 0 || bytes[at + 1000] !== 0 || bytes[at + UNIT - 1] !== 0)
    return false;
  return ZEROS.equals(bytes.subarray(at, at + UNIT));
}
