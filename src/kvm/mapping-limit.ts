import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { MAP, pageSize, PROT, raw } from '../linux/index.js';
import { type SlotRegion } from './slot-region.js';

/** vm.max_map_count if /proc is unavailable. */
const USUAL_LIMIT = 65_530;
/**
 * The part of the limit that is left to the rest of the process: thread stacks, the heap, other libraries.
 */
const LEFT_TO_OTHERS = 1 / 16;
const READ_BYTES = 0x1_0000;
/** After so many mappings of our own all mappings of the process are counted again. */
const COUNTED_AFTER = 1024;
/** Mappings held in reserve: the number that moving a placeholder briefly needs. */
const SPARE = 16;
/** With fewer runs than this none is unmapped to save mappings. */
const FEW_RUNS = 32;
/** The part of the mapped runs that is unmapped at once. */
const PART_UNMAPPED = 1 / 4;

/** A part of a region that is mapped for the VMM's threads and the kernel. Addresses. */
interface MappedRun {
  readonly region: SlotRegion;
  readonly start: number;
  readonly end: number;
}

function limit(): number {
  try {
    return Number(readFileSync('/proc/sys/vm/max_map_count', 'latin1')) || USUAL_LIMIT;
  } catch {
    return USUAL_LIMIT;
  }
}

const NEWLINE = 0x0a;
const SPACE = 0x20;
const DASH = 0x2d;
/** Fields of a line: start-end, permissions, offset, device, inode, path. */
const INODE = 4;

/** The value of a hexadecimal digit. */
const digit = (byte: number): number => (byte > 0x60 ? byte - 0x57 : byte - 0x30);

/**
 * Calls `each` with the start and end of every mapping of this process, and whether it maps a file. Parses
 * byte by byte: a process at its mapping limit cannot grow its heap for tens of thousands of lines. Source:
 * proc_pid_maps(5).
 */
function eachMapping(each: (start: number, end: number, isFile: boolean) => void): void {
  const fd = openSync('/proc/self/maps', 'r');
  const buffer = Buffer.allocUnsafe(READ_BYTES);
  let [start, value, field, isFile] = [0, 0, 0, false];
  let end = 0;
  try {
    for (let read = readSync(fd, buffer); read > 0; read = readSync(fd, buffer)) {
      for (let at = 0; at < read; at++) {
        const byte = buffer[at]!;
        if (byte === NEWLINE) {
          each(start, end, isFile);
          [value, field, isFile] = [0, 0, false];
        } else if (byte === SPACE) {
          if (field === 0) end = value;
          field++;
        } else if (field === 0 && byte === DASH) {
          start = value;
          value = 0;
        } else if (field === 0) value = value * 16 + digit(byte);
        else if (field === INODE && byte !== 0x30) isFile = true;
      }
    }
  } finally {
    closeSync(fd);
  }
}

/** The parts of regions over which their file is mapped, by ascending address. */
function mappedRuns(regions: readonly SlotRegion[]): MappedRun[] {
  const runs: MappedRun[] = [];
  eachMapping((start, end, isFile) => {
    if (!isFile) return;
    for (const region of regions) {
      const isInside = start >= region.address && end <= region.address + region.count * region.pageSize;
      if (isInside) runs.push({ region, start, end });
    }
  });
  return runs;
}

/**
 * How many more mappings this process should make: each run of pages that is mapped may take two. Pages that
 * no accessor waits for are not mapped close to vm.max_map_count. For one isolate. Source: proc_sys_vm(5).
 */
export class MappingBudget {
  #left = 0;
  /** Runs that were refused since the mappings were last counted. */
  #refused = Infinity;

  /** Whether another run may be mapped that no accessor waits for. */
  take(): boolean {
    if (this.#left < 2 && !this.#count()) return false;
    this.#left -= 2;
    return true;
  }

  /** The process may have fewer mappings now. */
  recount(): void {
    this.#refused = Infinity;
    this.#left = 0;
  }

  /** Counting reads a line for each mapping: it is done rarely while there are none left. */
  #count(): boolean {
    if (++this.#refused < 1000) return false;
    this.#refused = 0;
    const most = limit();
    this.#left = Math.floor(most * (1 - LEFT_TO_OTHERS));
    try {
      eachMapping(() => this.#left--);
    } catch {
      this.#left = USUAL_LIMIT; // without /proc the kernel's ENOMEM decides
    }
    if (this.#left < 2) return false;
    this.#refused = Infinity;
    // Other threads map memory as well: the mappings are counted again before long.
    this.#left = Math.min(this.#left, COUNTED_AFTER);
    return true;
  }
}

/** Makes room for mappings by unmapping runs of pages. Used by the slot thread only. */
export class MappingRoom {
  readonly #regions: readonly SlotRegion[];
  /** Unmaps pages; their contents stay. */
  readonly #unmap: (region: SlotRegion, start: number, length: number) => void;
  #spare = 0;
  /** Where unmapping continues: all runs take their turn. */
  #next = 0;

  constructor(
    regions: readonly SlotRegion[],
    unmap: (region: SlotRegion, start: number, length: number) => void,
  ) {
    this.#regions = regions;
    this.#unmap = unmap;
    this.#hold();
  }

  /** Runs a body that briefly needs a few mappings. */
  using<T>(body: () => T): T {
    this.#letGo();
    try {
      return body();
    } finally {
      this.#hold();
    }
  }

  /**
   * Unmaps a part of the mapped runs and returns how many. An access to one of them maps it again. `needed`:
   * a requested page cannot be mapped; otherwise nothing is done with few runs, so that none is unmapped
   * before its access is over.
   */
  make(needed: boolean): number {
    const runs = mappedRuns(this.#regions);
    if (runs.length < (needed ? 1 : FEW_RUNS)) return 0;
    const from = Math.max(
      0,
      runs.findIndex(({ start }) => start >= this.#next),
    );
    const { region, start } = runs[from]!;
    const most = Math.ceil(runs.length * PART_UNMAPPED);
    let last = from;
    while (last + 1 < runs.length && last + 1 - from < most && runs[last + 1]!.region === region) last++;
    const { end } = runs[last]!;
    // The gaps between them are unmapped as well, which changes nothing.
    this.using(() => this.#unmap(region, start, end - start));
    this.#next = end;
    return last + 1 - from;
  }

  close(): void {
    this.#letGo();
  }

  /** Neighbouring pages with different protection are separate mappings. */
  #hold(): void {
    const unit = pageSize();
    const flags = MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE;
    const spare = raw.mmap(0, SPARE * unit, PROT.NONE, flags, -1, 0);
    if (spare < 0) return; // there are none left to reserve
    this.#spare = spare;
    for (let page = 1; page < SPARE; page += 2) raw.mprotect(spare + page * unit, unit, PROT.READ);
  }

  #letGo(): void {
    if (this.#spare !== 0) raw.munmap(this.#spare, SPARE * pageSize());
    this.#spare = 0;
  }
}
