import { closeSync, constants, fstatSync, openSync, readSync, type Stats, statSync } from 'node:fs';
import { DemandPagingError } from '../api/error.js';
import { type ZeroRange } from '../api/read-answer.js';
import { type ModuleSourceRef, type PageSource } from '../api/source.js';
import { type ByteRun, dataRuns, libc } from '../linux/index.js';
import { checkExtent, MODULE } from './source-module.js';

export interface FileSourceOptions {
  /** Or a descriptor of this process, which stays open, and the caller's, while the source is read. */
  readonly path: string | number;
  /** Where in the file the source begins, in bytes. Default 0. */
  readonly offset?: number | undefined;
  /** Bytes. Default: to the end of the file, as it is when the source is opened; needed for a device. */
  readonly length?: number | undefined;
}

/**
 * A file, read with pread(2) as pages are wanted. Never mapped: a file that somebody truncates meanwhile
 * gives a short read, which the pager reports as SOURCE_LENGTH, where a mapping would end the process. Holes
 * of a sparse file, by the state in which it is opened, are not read but told of as zeros (lseek(2)). The
 * path is opened in each resolver's isolate, so it must mean the same file there (an absolute one does).
 * Blocks: `read` blocks its resolver for as long as the disk takes.
 * Errors: RangeError for the bounds; opening: SOURCE_FAILED (errno ENOENT, EACCES, …; or the path names a
 * directory, FIFO, socket or character device). Source: pread(2).
 */
export function file(
  path: string | number,
  { offset, length }: Omit<FileSourceOptions, 'path'> = {},
): ModuleSourceRef {
  if (offset !== undefined) checkExtent('offset', offset);
  if (length !== undefined) checkExtent('length', length);
  return {
    module: MODULE,
    export: 'openFile',
    options: { path, offset, length } satisfies FileSourceOptions,
    mayShare: true,
  };
}

/** Opens what {@link file} names, in this isolate. Errors: SOURCE_FAILED. */
export function openFile({ path, offset: start = 0, length: given }: FileSourceOptions): PageSource {
  const fd = typeof path === 'number' ? path : openForReading(path);
  const stats = typeof path === 'number' ? statsOf(path) : fstatSync(fd);
  const length = given ?? Math.max(0, stats.size - start);
  const seeker = stats.isFile() && stats.blocks * BLOCK < stats.size ? openSeeker(path, fd) : undefined;
  let closed = false;
  return {
    synchronous: true,
    length,
    read(offset, into) {
      if (closed) throw new DemandPagingError('CLOSED', 'the file source was closed');
      const count = Math.max(0, Math.min(into.length, length - offset));
      const from = start + offset;
      const data = seeker === undefined ? undefined : dataRuns(seeker, from, from + count);
      // Past the end of a file that has become shorter there are no holes, but nothing.
      if (!data || data[0]?.length === count || fstatSync(fd).size < from + count)
        return readRun(fd, into, { start: from, length: count });
      for (const run of data) {
        const at = run.start - from;
        const read = readRun(fd, into.subarray(at, at + run.length), run);
        if (read < run.length) return at + read;
      }
      return { length: count, zeros: between(data, from, from + count) };
    },
    close() {
      if (closed) return; // the descriptor's number may be another file's by now
      closed = true;
      if (seeker !== undefined && seeker !== fd) closeSync(seeker);
      if (fd !== path) closeSync(fd);
    },
  };
}

/** Bytes of a block of `stat`. */
const BLOCK = 512;

/** Reads `run` to the beginning of `into`; how many bytes there were. */
function readRun(fd: number, into: Uint8Array, { start, length }: ByteRun): number {
  for (let done = 0; done < length;) {
    const read = readSync(fd, into, done, length - done, start + done);
    if (read === 0) return done; // the file has become shorter
    done += read;
  }
  return length;
}

/** What lies between runs of `[from, end)`, counted from its first byte. */
function between(runs: readonly ByteRun[], from: number, end: number): ZeroRange[] {
  const zeros: ZeroRange[] = [];
  let at = from;
  for (const { start, length } of [...runs, { start: end, length: 0 }]) {
    if (start > at) zeros.push({ start: at - from, length: start - at });
    at = start + length;
  }
  return zeros;
}

/**
 * A descriptor whose offset may be moved, to search for holes (Node has no lseek(2)): of a file that the
 * caller has open, one of our own. Undefined: holes are read, as zeros.
 */
function openSeeker(path: string | number, fd: number): number | undefined {
  try {
    libc();
    return typeof path === 'number' ? openSync(`/proc/self/fd/${path}`, 'r') : fd;
  } catch {
    return undefined;
  }
}

/** Of a descriptor of the caller's. Errors: SOURCE_FAILED for what is no file. */
function statsOf(fd: number): Stats {
  try {
    const stats = fstatSync(fd);
    refuseOtherThanFile(stats);
    return stats;
  } catch (cause) {
    throw failure(`descriptor ${fd} is no source`, cause);
  }
}

/**
 * Looked at before it is opened, because opening a FIFO waits for a writer and opening a device may do
 * something; and again after, because the path may name something else by then. Errors: SOURCE_FAILED.
 */
export function openForReading(path: string): number {
  let fd: number | undefined;
  try {
    refuseOtherThanFile(statSync(path));
    fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
    refuseOtherThanFile(fstatSync(fd));
    return fd;
  } catch (cause) {
    if (fd !== undefined) closeSync(fd);
    throw failure(`the source file ${path} cannot be opened`, cause);
  }
}

function failure(message: string, cause: unknown): DemandPagingError {
  const { errno, syscall } = cause as NodeJS.ErrnoException;
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new DemandPagingError('SOURCE_FAILED', `${message}: ${reason}`, {
    cause,
    errno: errno === undefined ? undefined : -errno,
    syscall,
  });
}

/**
 * A page may be read at any offset, again and again: only files and block devices answer so. Throws Error.
 */
function refuseOtherThanFile(stats: Stats): void {
  if (stats.isFile() || stats.isBlockDevice()) return;
  const kind = stats.isDirectory()
    ? 'a directory'
    : stats.isFIFO()
      ? 'a FIFO'
      : stats.isSocket()
        ? 'a socket'
        : 'a character device';
  throw new Error(`it is ${kind}, and pages are read from regular files and block devices`);
}
