import { closeSync, constants, fstatSync, openSync, readSync, type Stats, statSync } from 'node:fs';
import { DemandPagingError } from '../api/error.js';
import { type ModuleSourceRef, type PageSource } from '../api/source.js';
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
 * gives a short read, which the pager reports as SOURCE_LENGTH, where a mapping would end the process.
 * The path is opened in each resolver's isolate, so it must mean the same file there (an absolute one does).
 * Blocks: `read` blocks its resolver for as long as the disk takes.
 * Errors: RangeError for the bounds; opening: SOURCE_FAILED (errno ENOENT, EACCES, …; or the path names a directory, FIFO,
 * socket or character device). Source: pread(2).
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
  };
}

/** Opens what {@link file} names, in this isolate. Errors: SOURCE_FAILED. */
export function openFile({ path, offset: start = 0, length: given }: FileSourceOptions): PageSource {
  const fd = typeof path === 'number' ? path : openForReading(path);
  const length = given ?? Math.max(0, fstatSync(fd).size - start);
  let closed = false;
  return {
    synchronous: true,
    length,
    read(offset, into) {
      if (closed) throw new DemandPagingError('CLOSED', 'the file source was closed');
      const count = Math.max(0, Math.min(into.length, length - offset));
      for (let done = 0; done < count;) {
        const read = readSync(fd, into, done, count - done, start + offset + done);
        if (read === 0) return done; // the file has become shorter
        done += read;
      }
      return count;
    },
    close() {
      if (closed) return; // the descriptor's number may be another file's by now
      closed = true;
      if (fd !== path) closeSync(fd);
    },
  };
}

/**
 * Looked at before it is opened, because opening a FIFO waits for a writer and opening a device may do something; and
 * again after, because the path may name something else by then. Errors: SOURCE_FAILED.
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
    const { errno, syscall } = cause as NodeJS.ErrnoException;
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new DemandPagingError('SOURCE_FAILED', `the source file ${path} cannot be opened: ${reason}`, {
      cause,
      errno: errno === undefined ? undefined : -errno,
      syscall,
    });
  }
}

/** A page may be read at any offset, again and again: only files and block devices answer so. Throws Error. */
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
