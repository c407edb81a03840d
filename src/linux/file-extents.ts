import { ERRNO } from './failure.js';
import * as raw from './raw.js';

/** A run of bytes. */
export interface ByteRun {
  readonly start: number;
  readonly length: number;
}

const SEEK_DATA = 3;
const SEEK_HOLE = 4;

/**
 * The runs of `[start, end)` of a file that hold data; what lies between reads as zeros. Moves the
 * descriptor's offset. Of a file that cannot tell, or of a place past its end, undefined: what is there must
 * be read to be known.
 * Blocks: as the file system does. Errors: none. Source: lseek(2).
 */
export function dataRuns(fd: number, start: number, end: number): ByteRun[] | undefined {
  const runs: ByteRun[] = [];
  for (let at = start; at < end;) {
    const data = raw.lseek(fd, at, SEEK_DATA);
    if (data === -ERRNO.ENXIO) break; // a hole up to the end of the file, or past it
    if (data < 0) return undefined;
    if (data >= end) break;
    const hole = raw.lseek(fd, data, SEEK_HOLE);
    if (hole <= data) return undefined;
    const stop = Math.min(hole, end);
    runs.push({ start: data, length: stop - data });
    at = stop;
  }
  return runs;
}
