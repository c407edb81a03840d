import { closeSync, fstatSync, openSync, readFileSync } from 'node:fs';
import { joinedRuns } from '../api/byte-runs.js';
import { DemandPagingError } from '../api/error.js';
import { check, ERRNO, systemError } from './failure.js';
import { libc } from './ffi.js';
import { type ByteRun, dataRuns } from './file-extents.js';
import { MADV, MAP, MREMAP, PROT } from './mman.js';
import { load64, NativeBlock, store64 } from './native-block.js';
import { checkFileHolds } from './memory-file.js';
import { pageSize } from './page-size.js';
import { type MappedPiece, ProcessMaps } from './process-maps.js';
import * as raw from './raw.js';
import { openPagemap, PAGEMAP_HIGH } from './residency.js';
import { UFFD_FEATURE, UFFD_REGISTER_MODE } from './userfaultfd-abi.js';
import { Userfaultfd } from './userfaultfd.js';

/** The memory to scan. */
export interface FoundMemoryOptions {
  /** Where it is mapped in this process; page-aligned. */
  readonly address: number;
  /** Bytes. */
  readonly length: number;
  /** Bytes of a page: runs consist of whole pages, each with contents. */
  readonly pageSize: number;
  /** Bytes of the kernel's huge page, if the memory consists of huge pages. */
  readonly hugePageSize?: number | undefined;
  /**
   * Whether it may have pages that this mapping does not map: memory that lies in a file. What maps a file
   * does so in any case.
   */
  readonly shared: boolean;
  /** The memory was just mapped and no other thread uses it: none of it is swapped out. Default false. */
  readonly fresh?: boolean | undefined;
  /** The memory file, where it is known, and where in it the memory begins. */
  readonly file?: { readonly fd: number; readonly offset: number } | undefined;
  /** What is mapped in this process, where that was read already. */
  readonly maps?: ProcessMaps | undefined;
}

/**
 * Finds the present pages of memory of this process, that is those whose access raises no userfaultfd
 * message: mapped, swapped out, poisoned, or in the page cache behind the mapping, whichever process put them
 * there; including pages that fallocate(2) has only reserved, which read as zeros.
 *
 * Private memory is known from the page tables (/proc/self/pagemap). Of a file, holes are asked for
 * (lseek(2)); of huge pages, of a file whose descriptor is not known, and where more is set aside than
 * written, each page is asked for through a second mapping (UFFDIO_CONTINUE, which finds a page or none).
 * A file that is mapped privately counts, too: its pages show through.
 *
 * Precondition: constructed before the memory is registered with a userfaultfd; it may scan any number of
 * times afterwards.
 * Blocks: never for a page. Errors: NOT_SUPPORTED, NO_PERMISSION where this process cannot tell (no /proc, no
 * userfaultfd; EACCES), BAD_RANGE (ENOMEM: not mapped; a file that is shorter), KERNEL. Source: pagemap.rst
 * (PAGEMAP_SCAN, Linux 6.7), mincore(2), userfaultfd.rst.
 */
export class FoundMemory {
  readonly #o: FoundMemoryOptions;
  /** The memory is in a file whose descriptor is not known. */
  readonly #aliases: readonly Alias[];
  /** Whether it lies in a file, or the page cache shows through it. */
  readonly #inFile: boolean;
  /** Whether it maps a file privately: what the file has shows through, and cannot be discarded from here. */
  readonly showsFile: boolean;
  #closed = false;

  constructor(options: FoundMemoryOptions) {
    this.#o = options;
    const { shared, fresh, file, address, length } = options;
    const maps = fresh ? undefined : (options.maps ?? ProcessMaps.read());
    const pieces = maps?.within(address, length);
    this.showsFile = pieces?.some((piece) => !piece.shared) ?? false;
    this.#inFile = shared || (pieces?.length ?? 0) > 0;
    this.#aliases = this.#inFile && !file ? aliasesOf(pieces, options) : [];
  }

  /**
   * The runs of pages that have something, from the beginning of the memory, in ascending order; none touches
   * the next.
   */
  runs(): readonly ByteRun[] {
    const { address, length, file, pageSize: unit, hugePageSize } = this.#o;
    const runs = [...this.#mapped(), ...residentRuns(address, length)];
    if (file && this.#inFile) runs.push(...fileRuns(this.#o, file));
    for (const alias of this.#aliases)
      for (const run of probedRuns(alias.address, alias.length, hugePageSize ?? pageSize()))
        runs.push({ start: alias.start + run.start, length: run.length });
    return wholePages(runs, unit);
  }

  /** Idempotent. */
  close(): void {
    if (!this.#closed) unmap(this.#aliases);
    this.#closed = true;
  }

  #mapped(): readonly ByteRun[] {
    const { address, length, shared, fresh } = this.#o;
    try {
      return mappedRuns('self', address, length);
    } catch (error) {
      // Residency is equivalent for the page cache, and where nothing can be swapped out.
      if (shared || fresh || hasNoSwap()) return [];
      throw error;
    }
  }
}

function hasNoSwap(): boolean {
  try {
    return /^SwapTotal:\s+0 kB$/m.test(readFileSync('/proc/meminfo', 'utf8'));
  } catch {
    return false; // no /proc to ask
  }
}

/**
 * The runs of bytes from `address` that the page tables of a process know: mapped, swapped out, or marked, as
 * by poison. `process`: its number, or `self`. Blocks: never. Errors: NOT_SUPPORTED without /proc,
 * NO_PERMISSION (EACCES, EPERM: it needs the rights of ptrace), MEMORY_GONE (the process has ended), KERNEL.
 */
export function mappedRuns(process: number | 'self', address: number, length: number): ByteRun[] {
  const fd = openPagemap(process);
  try {
    return scannedRuns(fd, address, length) ?? entryRuns(fd, address, length);
  } finally {
    closeSync(fd);
  }
}

const PAGEMAP_SCAN = 0xc060_6610;
const SCAN_BYTES = 96;
const REGION_BYTES = 24;
const REGIONS_PER_SCAN = 512;
const PAGE_IS = { present: 1 << 3, swapped: 1 << 4 } as const;

/** By PAGEMAP_SCAN, which passes over what has no page tables; undefined where the kernel has none. */
function scannedRuns(fd: number, address: number, length: number): ByteRun[] | undefined {
  using argument = new NativeBlock(SCAN_BYTES);
  using regions = new NativeBlock(REGIONS_PER_SCAN * REGION_BYTES);
  const { words } = argument;
  const runs: ByteRun[] = [];
  const end = address + length;
  for (let at = address; at < end;) {
    words.fill(0);
    words[0] = SCAN_BYTES;
    store64(words, 4, at);
    store64(words, 6, end);
    store64(words, 10, regions.address);
    words[12] = REGIONS_PER_SCAN;
    words[20] = words[22] = PAGE_IS.present | PAGE_IS.swapped;
    const found = raw.ioctl(fd, PAGEMAP_SCAN, argument.address);
    if (found === -ERRNO.ENOTTY) return undefined;
    check(found, 'ioctl PAGEMAP_SCAN', 'the page tables cannot be looked at');
    for (let each = 0; each < found; each++) {
      const start = load64(regions.words, each * 6);
      runs.push({ start: start - address, length: load64(regions.words, each * 6 + 2) - start });
    }
    const walked = load64(words, 8);
    if (walked <= at) throw new DemandPagingError('KERNEL', 'PAGEMAP_SCAN got no further');
    at = walked;
  }
  return runs;
}

const ENTRIES_PER_READ = 32_768;

/** Entry by entry. */
function entryRuns(fd: number, address: number, length: number): ByteRun[] {
  const unit = pageSize();
  using entries = new NativeBlock(ENTRIES_PER_READ * 8);
  const runs: ByteRun[] = [];
  for (let page = 0; page < length / unit;) {
    const count = Math.min(ENTRIES_PER_READ, length / unit - page);
    const bytes = raw.pread(fd, entries.address, count * 8, (address / unit + page) * 8);
    check(bytes, 'pread', 'the page tables cannot be looked at');
    if (bytes === 0) throw new DemandPagingError('MEMORY_GONE', 'the process has no page tables any more');
    for (let each = 0; each < bytes / 8; each++)
      if (entries.words[each * 2 + 1]! & (PAGEMAP_HIGH.present | PAGEMAP_HIGH.swap))
        addPage(runs, (page + each) * unit, unit);
    page += bytes / 8;
  }
  return runs;
}

const PAGES_PER_MINCORE = 65_536;

/** By mincore(2): sees every page in the page cache, whichever process put it there. */
function residentRuns(address: number, length: number): ByteRun[] {
  const unit = pageSize();
  using vector = new NativeBlock(PAGES_PER_MINCORE);
  const { bytes, words } = vector;
  const runs: ByteRun[] = [];
  for (let page = 0; page < length / unit; page += PAGES_PER_MINCORE) {
    const count = Math.min(PAGES_PER_MINCORE, length / unit - page);
    const result = libc().mincore(address + page * unit, count * unit, vector.address);
    check(result === -1 ? -libc().errno() : 0, 'mincore', 'what memory holds cannot be told', {
      codes: { [ERRNO.ENOMEM]: 'BAD_RANGE' },
    });
    for (let each = 0; each < count; each++) {
      if (each % 4 === 0 && each + 4 <= count && words[each / 4] === 0) each += 3;
      else if (bytes[each]! & 1) addPage(runs, (page + each) * unit, unit);
    }
  }
  return runs;
}

const BLOCK = 512;

/** The runs with contents in a memory file, relative to the start of the memory. */
function fileRuns(
  { length, hugePageSize }: FoundMemoryOptions,
  { fd, offset }: NonNullable<FoundMemoryOptions['file']>,
): readonly ByteRun[] {
  const { blocks, size } = fstatSync(fd);
  if (blocks === 0) return [];
  const written = hugePageSize ? undefined : dataRuns(fd, 0, size);
  const setAside = blocks * BLOCK - (written?.reduce((sum, run) => sum + run.length, 0) ?? 0);
  const within = written?.flatMap(({ start, length: bytes }) => {
    const from = Math.max(start, offset);
    const to = Math.min(start + bytes, offset + length);
    return from < to ? [{ start: from - offset, length: to - from }] : [];
  });
  if (within && setAside <= 0) return within;
  // lseek(2) reports all of a hugetlb file as data, and reserved pages as holes.
  const alias = raw.mmap(0, length, PROT.READ | PROT.WRITE, MAP.SHARED | MAP.NORESERVE, fd, offset);
  check(alias, 'mmap', 'cannot map a memory file a second time');
  try {
    return [...(within ?? []), ...probedRuns(alias, length, hugePageSize ?? pageSize())];
  } finally {
    raw.munmap(alias, length);
  }
}

/** A second mapping of a part of the memory. */
interface Alias {
  /** From the beginning of the memory. */
  readonly start: number;
  readonly length: number;
  readonly address: number;
}

/** Second mappings of all memory in files. Without /proc it is assumed to be one shared file. */
function aliasesOf(
  pieces: readonly MappedPiece[] | undefined,
  memory: Pick<FoundMemoryOptions, 'address' | 'length' | 'hugePageSize'>,
): readonly Alias[] {
  const { address, length, hugePageSize } = memory;
  const aliases: Alias[] = [];
  const canCopy = hugePageSize === undefined; // mremap(2) leaves huge pages alone
  try {
    for (const piece of pieces ?? [undefined]) {
      const named = piece ? mappedByName(piece) : -ERRNO.ENOENT;
      const { start, length: bytes, shared } = piece ?? { start: address, length, shared: true };
      const alias = named < 0 && canCopy && shared ? copied(start, bytes, named) : named;
      if (alias < 0)
        throw systemError('mmap', -alias, 'what the file behind the memory holds cannot be told', {
          codes: { [-alias]: 'NOT_SUPPORTED' },
          hint: "Name the region's file, and map it shared",
        });
      raw.madvise(alias, bytes, MADV.DONTFORK);
      aliases.push({ start: start - address, length: bytes, address: alias });
    }
    return aliases;
  } catch (error) {
    unmap(aliases);
    throw error;
  }
}

function unmap(aliases: readonly Alias[]): void {
  for (const { address, length } of aliases) raw.munmap(address, length);
}

/**
 * By its name in /proc, which takes CAP_CHECKPOINT_RESTORE (Linux 5.9): the address, or `-errno`.
 * Errors: BAD_RANGE where the file is shorter.
 */
function mappedByName({ name, offset, length }: MappedPiece): number {
  let fd: number;
  try {
    fd = openSync(`/proc/self/map_files/${name}`, 'r+');
  } catch (thrown) {
    return (thrown as NodeJS.ErrnoException).errno ?? -ERRNO.EACCES;
  }
  try {
    checkFileHolds(fd, offset, length);
    return raw.mmap(0, length, PROT.READ | PROT.WRITE, MAP.SHARED | MAP.NORESERVE, fd, offset);
  } finally {
    closeSync(fd);
  }
}

/**
 * By mremap(2), which needs no name: the address, or `-errno`; `refused` if the mapping is locked, because
 * the copy of a locked mapping is populated when it is made.
 */
function copied(address: number, length: number, refused: number): number {
  return isLocked(address) ? refused : raw.mremap(address, 0, length, MREMAP.MAYMOVE, 0);
}

/** Whether the mapping at an address is locked (mlock(2)). Source: proc_pid_smaps(5). */
function isLocked(address: number): boolean {
  try {
    if (/^VmLck:\s+0 kB$/m.test(readFileSync('/proc/self/status', 'latin1'))) return false;
    const smaps = readFileSync('/proc/self/smaps', 'latin1');
    for (const [, from, to, flags] of smaps.matchAll(/^(\w+)-(\w+) .*\n(?:[A-Z].*\n)*?VmFlags:(.*)$/gm))
      if (parseInt(from!, 16) <= address && address < parseInt(to!, 16)) return / lo\b/.test(flags!);
    return false;
  } catch {
    return false; // no /proc to ask
  }
}

/**
 * Page by page of a mapping that no other thread uses: UFFDIO_CONTINUE maps pages of the page cache and
 * reports missing ones.
 */
function probedRuns(alias: number, length: number, unit: number): readonly ByteRun[] {
  using uffd = openProbe();
  raw.madvise(alias, length, MADV.DONTNEED); // mapped by an earlier look
  const { port } = uffd;
  const registered = port.register(alias, length, UFFD_REGISTER_MODE.MINOR);
  if (registered === -ERRNO.EINVAL) return []; // another kind of file, without reserved pages
  check(registered, 'ioctl UFFDIO_REGISTER', 'what a memory file has cannot be told');
  const runs: ByteRun[] = [];
  for (let at = 0; at < length;) {
    const result = port.continue(alias + at, length - at);
    const done = result === 0 ? length - at : port.done;
    if (done > 0) runs.push({ start: at, length: done });
    else if (result === -ERRNO.EEXIST) runs.push({ start: at, length: unit });
    else if (result !== -ERRNO.EFAULT)
      check(result, 'ioctl UFFDIO_CONTINUE', 'what a memory file has cannot be told');
    at += done > 0 ? done : unit;
  }
  return runs;
}

/** Needs no privilege: no kernel access ever faults on it. */
function openProbe(): Userfaultfd {
  try {
    return Userfaultfd.open({
      userModeOnly: true,
      features: UFFD_FEATURE.MINOR_SHMEM | UFFD_FEATURE.MINOR_HUGETLBFS,
    });
  } catch (cause) {
    throw new DemandPagingError(
      'NOT_SUPPORTED',
      'what a memory file has cannot be told without userfaultfd',
      {
        cause,
      },
    );
  }
}

function addPage(runs: ByteRun[], start: number, length: number): void {
  const last = runs.at(-1);
  if (last && last.start + last.length === start)
    runs[runs.length - 1] = { ...last, length: last.length + length };
  else runs.push({ start, length });
}

/** Widened to whole pages, sorted and joined. */
const wholePages = (runs: readonly ByteRun[], unit: number): readonly ByteRun[] =>
  joinedRuns(
    runs.map((run) => {
      const start = Math.floor(run.start / unit) * unit;
      return { start, length: Math.ceil((run.start + run.length) / unit) * unit - start };
    }),
  );
