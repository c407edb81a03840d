import { closeSync, openSync, readFileSync, readSync } from 'node:fs';
import { MAP, pageSize, PROT, raw } from '../linux/index.js';
import { type SlotRegion } from './slot-region.js';

/** vm.max_map_count where /proc does not say it. */
const USUAL_LIMIT = 65_530;
/** Of a limit, what is left to the rest of the process: thread stacks, the heap, other libraries. */
const LEFT_TO_OTHERS = 1 / 16;
const READ_BYTES = 0x1_0000;
/** Mappings of ours after which all of the process's are counted again. */
const COUNTED_AFTER = 1024;
/** Mappings that are held to be let go when there are no more: what a move of a placeholder takes for a moment. */
const SPARE = 16;
/** Runs that are too few to be worth hiding some. */
const FEW_RUNS = 32;
/** How much of what is shown is hidden at once. */
const PART_HIDDEN = 1 / 4;

/** A part of a region that the VMM's threads and the kernel find mapped. Addresses. */
interface ShownRun {
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
 * Calls `each` with the start and end of every mapping of this process, and whether a file is behind it. Byte by byte:
 * a process that can have no more mappings has no room for the garbage of tens of thousands of lines. Source: proc_pid_maps(5).
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

/** The parts of regions over which their file is mapped, in the order of addresses. */
function shownRuns(regions: readonly SlotRegion[]): ShownRun[] {
  const runs: ShownRun[] = [];
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
 * How many mappings more this process should have: each run of pages that is shown may take two. What is shown without
 * need stops short of vm.max_map_count. For one isolate. Source: proc_sys_vm(5).
 */
export class MappingBudget {
  #left = 0;
  /** Runs that were not shown since it was last counted. */
  #refused = Infinity;

  /** Whether another run may be shown that nobody waits for. */
  take(): boolean {
    if (this.#left < 2 && !this.#count()) return false;
    this.#left -= 2;
    return true;
  }

  /** There may be fewer now. */
  recount(): void {
    this.#refused = Infinity;
    this.#left = 0;
  }

  /** Counting reads a line for each mapping: seldom, while there are none left. */
  #count(): boolean {
    if (++this.#refused < 1000) return false;
    this.#refused = 0;
    const most = limit();
    this.#left = Math.floor(most * (1 - LEFT_TO_OTHERS));
    try {
      eachMapping(() => this.#left--);
    } catch {
      this.#left = USUAL_LIMIT; // without /proc the kernel says when there are too many
    }
    if (this.#left < 2) return false;
    this.#refused = Infinity;
    // Others in the process map, too: it is counted again before long.
    this.#left = Math.min(this.#left, COUNTED_AFTER);
    return true;
  }
}

/** Makes room for mappings, by hiding runs of pages that were shown. Used by the slot thread only. */
export class MappingRoom {
  readonly #regions: readonly SlotRegion[];
  /** Takes pages out of sight, with their contents, and says how that went. */
  readonly #hide: (region: SlotRegion, start: number, length: number) => void;
  #spare = 0;
  /** Where hiding goes on: all are hidden in turn. */
  #next = 0;

  constructor(
    regions: readonly SlotRegion[],
    hide: (region: SlotRegion, start: number, length: number) => void,
  ) {
    this.#regions = regions;
    this.#hide = hide;
    this.#hold();
  }

  /** Does what needs a few mappings for a moment. */
  using<T>(body: () => T): T {
    this.#letGo();
    try {
      return body();
    } finally {
      this.#hold();
    }
  }

  /**
   * Hides a part of what is shown: how many runs. What is accessed again is shown again. `needed`: a page that is asked
   * for cannot be mapped; else few runs are left alone, so that none is hidden before its access has come to an end.
   */
  make(needed: boolean): number {
    const runs = shownRuns(this.#regions);
    if (runs.length < (needed ? 1 : FEW_RUNS)) return 0;
    const from = Math.max(
      0,
      runs.findIndex(({ start }) => start >= this.#next),
    );
    const { region, start } = runs[from]!;
    const most = Math.ceil(runs.length * PART_HIDDEN);
    let last = from;
    while (last + 1 < runs.length && last + 1 - from < most && runs[last + 1]!.region === region) last++;
    const { end } = runs[last]!;
    // What lies between them is hidden as it is.
    this.using(() => this.#hide(region, start, end - start));
    this.#next = end;
    return last + 1 - from;
  }

  close(): void {
    this.#letGo();
  }

  /** Neighbours that differ in their protection are a mapping each. */
  #hold(): void {
    const unit = pageSize();
    const flags = MAP.PRIVATE | MAP.ANONYMOUS | MAP.NORESERVE;
    const spare = raw.mmap(0, SPARE * unit, PROT.NONE, flags, -1, 0);
    if (spare < 0) return; // there are none to hold
    this.#spare = spare;
    for (let page = 1; page < SPARE; page += 2) raw.mprotect(spare + page * unit, unit, PROT.READ);
  }

  #letGo(): void {
    if (this.#spare !== 0) raw.munmap(this.#spare, SPARE * pageSize());
    this.#spare = 0;
  }
}
