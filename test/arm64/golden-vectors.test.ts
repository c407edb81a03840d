import { readFileSync, readdirSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { parseVectors, replayVector } from '../../src/arm64/index.js';

/**
 * Recorded from a real arm64 KVM, Linux 7.3.4 or what a vector names. GOLDEN_VECTORS names a folder with more
 * in the same format.
 */
const folder =
  process.env['GOLDEN_VECTORS'] ?? new URL('../../fixtures/its-vectors/', import.meta.url).pathname;

const files = readdirSync(folder).filter((name) => name.endsWith('.jsonl'));

describe('golden vectors of the in-kernel ITS', () => {
  it('are there', () => expect(files.length).toBeGreaterThanOrEqual(8));

  for (const name of files) {
    describe(name, () => {
      for (const vector of parseVectors(readFileSync(`${folder}/${name}`, 'utf8'), name)) {
        it(`${vector.id} ${vector.desc}`, () => {
          expect(replayVector(vector)).toEqual({ kind: 'ok', id: vector.id, steps: vector.steps.length });
        });
      }
    });
  }
});
