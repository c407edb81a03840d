import { closeSync, writeSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { WINDOW_BYTES } from '../api/index.js';
import { programmedVgic, type SavedVm } from './saved-vm.js';
import { failureOfCall } from './failure.js';
import { structuresOf } from './structure-map.js';
import { ELSEWHERE, unnamedFile } from './unnamed-file.js';

/** How large a rebuilt image is at least. */
const LEAST_BYTES = 48 * 1024 * 1024;
const CHUNK_BYTES = 1024 * 1024;
const ALIGNMENT = 64n * 1024n;

/** Where a rebuilt image begins, how long it is, and how much of its beginning holds tables. */
export interface ImageExtent {
  readonly base: bigint;
  readonly length: number;
  readonly table_bytes: number;
}

/** One stretch of memory from the first memslot on, with every structure of the saved VM in it. */
export function imageExtent(vm: SavedVm): ImageExtent {
  const { memslots, vcpu_ids: vcpus } = vm.vector.vm;
  const base = memslots.reduce((least, { gpa }) => (gpa < least ? gpa : least), memslots[0]!.gpa);
  const end = memslots.reduce((most, { gpa, size }) => (gpa + size > most ? gpa + size : most), base);
  const length = Math.max(LEAST_BYTES, Number(end - base));
  const structures = structuresOf(programmedVgic(vm), vcpus.length, vm.memory);
  const tables = alignUp(structures.endWithin(base, BigInt(length)) - base);
  return { base, length, table_bytes: Number(tables) };
}

const alignUp = (bytes: bigint): bigint => ((bytes + ALIGNMENT - 1n) / ALIGNMENT) * ALIGNMENT;

/** One piece after the other of the image: the tables as they were saved, and a pattern everywhere else. */
export function* imageChunks(vm: SavedVm, extent: ImageExtent): Generator<Uint8Array> {
  const chunk = new Uint8Array(CHUNK_BYTES);
  const windows = new Map(vm.memory.windows());
  for (let at = 0; at < extent.length; at += CHUNK_BYTES) {
    const bytes = chunk.subarray(0, Math.min(CHUNK_BYTES, extent.length - at));
    fillPattern(bytes, at);
    for (let offset = 0; offset < bytes.length; offset += WINDOW_BYTES) {
      const saved = windows.get(extent.base + BigInt(at + offset));
      if (saved) bytes.set(saved, offset);
      else if (at + offset < extent.table_bytes) bytes.fill(0, offset, offset + WINDOW_BYTES);
    }
    yield bytes;
  }
}

/** Fills memory with words that tell where they belong: a page in another's place is seen. */
export function fillPattern(bytes: Uint8Array, offset: number): void {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >>> 2);
  let place = offset / 4;
  for (let at = 0; at < words.length; at++, place++)
    words[at] = Math.imul(place ^ (place >>> 13), 0x9e37_79b1);
}

/** Writes an image into a temporary file without a name; its descriptor. Errors: as the kernel's of writing it. */
export function writeImage(vm: SavedVm, extent: ImageExtent): number {
  const fd = unnamedFile();
  try {
    for (const bytes of imageChunks(vm, extent)) writeWhole(fd, bytes);
    return fd;
  } catch (cause) {
    closeSync(fd);
    throw failureOfCall(cause, `the image cannot be written to ${tmpdir()}`, ELSEWHERE);
  }
}

function writeWhole(fd: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length;) done += writeSync(fd, bytes, done);
}
