import { readFileSync } from 'node:fs';

/** A piece of memory that maps a file: memfd, tmpfs, huge pages, shared memory without a name. */
export interface MappedPiece {
  readonly start: number;
  /** Bytes. */
  readonly length: number;
  /** Which file: the same for every mapping of it. */
  readonly file: string;
  readonly inode: string;
  /** Where in the file the piece begins. */
  readonly offset: number;
  readonly shared: boolean;
  /** Its name in /proc/PID/map_files. */
  readonly name: string;
}

/** Memory of MAP_HUGETLB without a file is listed as a file that no other mapping can have. */
const HUGE_WITHOUT_FILE = '/anon_hugepage (deleted)';
const LINE = /^([0-9a-f]+)-([0-9a-f]+) \S{3}(\S) ([0-9a-f]+) (\S+) (\d+)\s*(.*)$/;

/**
 * The file mappings of a process at one instant (/proc/PID/maps), in ascending order.
 * Blocks: for the mmap lock of that process. Source: proc_pid_maps(5).
 */
export class ProcessMaps {
  readonly #pieces: readonly MappedPiece[];

  private constructor(pieces: readonly MappedPiece[]) {
    this.#pieces = pieces;
  }

  /** Undefined where there is no /proc, or none of this process for us. */
  static read(process: number | 'self' = 'self'): ProcessMaps | undefined {
    let text: string;
    try {
      text = readFileSync(`/proc/${process}/maps`, 'latin1');
    } catch {
      return undefined;
    }
    return new ProcessMaps(text.split('\n').flatMap((line) => pieceOf(line) ?? []));
  }

  /** What maps files of `[address, address + length)`, cut to it. */
  within(address: number, length: number): readonly MappedPiece[] {
    const end = address + length;
    const found: MappedPiece[] = [];
    for (let at = this.#firstEndingAfter(address); at < this.#pieces.length; at++) {
      const piece = this.#pieces[at]!;
      if (piece.start >= end) break;
      const start = Math.max(piece.start, address);
      const stop = Math.min(piece.start + piece.length, end);
      found.push({ ...piece, start, length: stop - start, offset: piece.offset + start - piece.start });
    }
    return found;
  }

  #firstEndingAfter(address: number): number {
    let [low, high] = [0, this.#pieces.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      const { start, length } = this.#pieces[middle]!;
      if (start + length <= address) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function pieceOf(line: string): MappedPiece | undefined {
  const [, from, to, sharing, offset, device, inode, path] = LINE.exec(line) ?? [];
  if (inode === undefined || inode === '0' || path === HUGE_WITHOUT_FILE) return undefined;
  const start = parseInt(from!, 16);
  return {
    start,
    length: parseInt(to!, 16) - start,
    file: `${device} ${inode}`,
    inode,
    offset: parseInt(offset!, 16),
    shared: sharing === 's',
    name: `${from}-${to}`,
  };
}
