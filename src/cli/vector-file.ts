import { readFileSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { DemandPagingError } from '../api/index.js';
import { entryFile } from '../api/package-entry.js';
import { parseVectors, type Vector } from '../arm64/index.js';

/**
 * The vectors in a file. Errors: SOURCE_FAILED where it cannot be read; BAD_IMAGE, naming file, line and
 * field, where it does not parse or holds none.
 */
export function readVectors(path: string): Vector[] {
  let text: string;
  try {
    text = textOf(path);
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new DemandPagingError('SOURCE_FAILED', `${path} cannot be read: ${reason}`, { cause });
  }
  const vectors = parseVectors(text, path);
  if (vectors.length === 0) throw new DemandPagingError('BAD_IMAGE', `${path} holds no vector`);
  return vectors;
}

/** A FIFO is read to its end (`<(zcat …)`); a device may have none. */
function textOf(path: string): string {
  const stat = statSync(path);
  if (!stat.isFile() && !stat.isFIFO()) throw new Error('it is neither a file nor a pipe');
  return readFileSync(path, 'utf8');
}

/** One vector, named `file.jsonl` (the first of the file) or `file.jsonl#B-060`. Errors: as {@link readVectors}; BAD_IMAGE for an unknown id. */
export function readVector(name: string): Vector {
  const [, path = name, id] = /^(.*?)(?:#([^#]*))?$/s.exec(name) ?? [];
  const vectors = readVectors(path);
  const found = id === undefined ? vectors[0] : vectors.find((vector) => vector.id === id);
  if (found) return found;
  throw new DemandPagingError('BAD_IMAGE', `${path} holds no vector ${id}`, {
    hint: `It has ${vectors
      .slice(0, 8)
      .map((vector) => vector.id)
      .join(', ')}${vectors.length > 8 ? ', …' : ''}`,
  });
}

/** The vectors that come with the package. */
export const shippedVectors = (family: string): string =>
  join(dirname(entryFile('package.json')), 'fixtures', 'its-vectors', `${family}.jsonl`);

/** Whether an argument names a vector rather than an image. */
export const isVectorName = (name: string): boolean => /\.jsonl(#[^#]*)?$/.test(name);
