import { fstatSync } from 'node:fs';
import { type GpaRange, hex } from '../api/address.js';
import { DemandPagingError } from '../api/error.js';
import { type MemoryKind } from '../api/layout.js';
import { ProcessMaps } from './process-maps.js';

/** Where the memory of one region is. */
export interface MemoryPlace {
  /** The region, for messages. */
  readonly range: GpaRange;
  readonly memory: MemoryKind;
  /** Where it is mapped, in the process that is looked at. */
  readonly address: number;
  /** The memory file that the region names, and where in it the memory begins. */
  readonly file?: { readonly fd: number; readonly offset: number } | undefined;
}

/** A part of a file in which memory of a region lies. */
interface Extent {
  readonly file: string;
  readonly offset: number;
  readonly length: number;
  readonly shared: boolean;
  readonly range: GpaRange;
}

/**
 * Refuses memory that two regions have in common: what is brought for the one is found by accesses to the
 * other, without a fault. And a region whose file is not what is mapped at its address, or that is of a file
 * and does not say so: pages would be looked for, brought and discarded elsewhere. Without /proc only what
 * the regions say of their files is known.
 *
 * `process`: in which the addresses are. Blocks: never. Errors: BAD_RANGE. Source: proc_pid_maps(5).
 */
export function checkPlaces(places: readonly MemoryPlace[], process: number | 'self' = 'self'): void {
  if (places.length === 0) return;
  const maps = ProcessMaps.read(process);
  refuseOverlap(places.flatMap((place) => (maps ? mappedExtents(maps, place) : namedExtent(place))));
}

const lengthOf = ({ range }: MemoryPlace): number => Number(range.length);

function mappedExtents(maps: ProcessMaps, place: MemoryPlace): readonly Extent[] {
  const { range, memory, address, file } = place;
  const pieces = maps.within(address, lengthOf(place));
  if (memory === 'anonymous' && pieces.some(({ shared }) => shared)) {
    throw new DemandPagingError(
      'BAD_RANGE',
      `the region at ${hex(range.start)} is of anonymous memory, and a file is mapped at ${hex(address)}`,
      { range, hint: "Memory of a memfd or tmpfs file is 'shmem', of huge pages 'hugetlb'" },
    );
  }
  if (file) {
    const inode = String(fstatSync(file.fd, { bigint: true }).ino);
    const others = pieces.some(
      (piece) => piece.inode !== inode || piece.offset - file.offset !== piece.start - address,
    );
    const covered = pieces.reduce((sum, { length }) => sum + length, 0);
    if (others || covered < lengthOf(place)) {
      throw new DemandPagingError(
        'BAD_RANGE',
        `the file that the region at ${hex(range.start)} names is not what is mapped at ${hex(address)}`,
        { range, hint: "Give the descriptor and the offset with which the region's memory was mapped" },
      );
    }
  }
  return pieces.map((piece) => ({ ...piece, range }));
}

function namedExtent(place: MemoryPlace): readonly Extent[] {
  const { range, file } = place;
  if (!file) return [];
  const { dev, ino } = fstatSync(file.fd, { bigint: true });
  return [{ file: `${dev} ${ino}`, offset: file.offset, length: lengthOf(place), shared: true, range }];
}

/** Private mappings of one place keep what they are given to themselves; a shared one shows it in all. */
function refuseOverlap(extents: readonly Extent[]): void {
  const sorted = [...extents].sort((a, b) => compare(a.file, b.file) || a.offset - b.offset);
  let before: Extent | undefined; // whichever of the file reaches furthest
  let sharedBefore: Extent | undefined;
  for (const extent of sorted) {
    if (before?.file !== extent.file) before = sharedBefore = undefined;
    const other = extent.shared ? before : sharedBefore;
    if (other && extent.offset < other.offset + other.length) {
      const [one, two] = [hex(other.range.start), hex(extent.range.start)];
      throw new DemandPagingError(
        'BAD_RANGE',
        `the regions at ${one} and ${two} have the same place of a memory file`,
        { range: extent.range, hint: 'Give each region a place of its own: was the offset left out?' },
      );
    }
    before = further(before, extent);
    if (extent.shared) sharedBefore = further(sharedBefore, extent);
  }
}

const further = (a: Extent | undefined, b: Extent): Extent =>
  a && a.offset + a.length >= b.offset + b.length ? a : b;

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);
