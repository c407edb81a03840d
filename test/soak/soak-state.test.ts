import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { SoakState } from './soak-state.js';

const SUBJECT = 'userfaultfd, copy';
const progress = { faults: 100, reads: 200, kills: 2, doing: ['a walk'], statistics: { missingFaults: 100 } };
const slice = { seed: 7, elapsed_ms: 50, killed: false, progress, failure: undefined };

describe("a soak's state", () => {
  let folder: string;
  let path: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'soak-state-'));
    path = join(folder, 'state.json');
  });
  afterEach(() => rmSync(folder, { recursive: true }));

  test('read again: goes on with the sums', () => {
    new SoakState(path).add(SUBJECT, slice);
    const next = new SoakState(path);
    next.add(SUBJECT, { ...slice, killed: true });
    expect(new SoakState(path).of(SUBJECT)).toMatchObject({ faults: 200, reads: 400, slices: 2, kills: 5 });
    expect(readdirSync(folder)).toEqual(['state.json']);
  });

  test('a slice that failed: its seed, what was under way and the counters are kept', () => {
    const failure = { kind: 'hang', what: 'took longer' } as const;
    new SoakState(path).add(SUBJECT, { ...slice, failure });
    const state = new SoakState(path);
    expect(state.failures).toBe(1);
    expect(state.of(SUBJECT)).toMatchObject({ wrong: 0, hangs: 1, errors: 0 });
    expect(state.of(SUBJECT).failures).toEqual([
      { seed: 7, ...failure, doing: progress.doing, statistics: progress.statistics },
    ]);
  });

  test('a file of another version: refused', () => {
    writeFileSync(path, '{"version":0,"subjects":{}}');
    expect(() => new SoakState(path)).toThrow(/version 0/);
  });
});
