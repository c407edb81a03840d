import { randomUUID } from 'node:crypto';
import { openSync, unlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { failureOfCall } from './failure.js';

/**
 * A descriptor of a temporary file without a name: it is gone with the last process that has it open, whatever ends that.
 * Errors: those of open(2), with the folder's name.
 */
export function unnamedFile(): number {
  const path = join(tmpdir(), `demand-paging-${randomUUID()}`);
  try {
    const fd = openSync(path, 'wx+', 0o600);
    unlinkSync(path);
    return fd;
  } catch (cause) {
    throw failureOfCall(cause, `no temporary file can be made in ${tmpdir()}`, ELSEWHERE);
  }
}

/** What to do where the temporary folder cannot be written. */
export const ELSEWHERE = 'Set TMPDIR to a folder that can be written and has room';
