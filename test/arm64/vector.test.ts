import { readFileSync } from 'node:fs';
import * as fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DemandPagingError } from '../../src/api/index.js';
import { parseVectors, replayVector, type Vector } from '../../src/arm64/index.js';

const text = readFileSync(new URL('../../fixtures/its-vectors/A.jsonl', import.meta.url), 'utf8');
const line = text.split('\n')[0]!;

type Json = Record<string, any>; // eslint-disable-line @typescript-eslint/no-explicit-any
const edited = (edit: (vector: Json) => void): string => {
  const json = JSON.parse(line) as Json;
  edit(json);
  return JSON.stringify(json);
};

function refusal(source: string): DemandPagingError {
  try {
    parseVectors(source, 'x.jsonl');
  } catch (error) {
    if (error instanceof DemandPagingError) return error;
    throw error;
  }
  throw new Error('accepted');
}

describe('malformed vectors', () => {
  const cases: readonly [name: string, source: string, message: RegExp][] = [
    ['not JSON', `${line}\n{"id":`, /^x\.jsonl:2: not JSON/],
    ['a missing field', edited((v) => delete v['vm'].memslots), /^x\.jsonl:1: vm\.memslots: /],
    ['a number where hexadecimal is due', edited((v) => (v['vm'].its_base = 5)), /vm\.its_base: /],
    ['too many digits', edited((v) => (v['mem0'][0][1] = '0x11111111111111111')), /mem0\.0\.1: expected 0x/],
    [
      'an odd address',
      edited((v) => (v['mem0'][0][0] = '0x80000001')),
      /mem0\.0\.0: expected a multiple of 8/,
    ],
    ['an unknown operation', edited((v) => (v['steps'][0].op = 'dance')), /steps\.0\.op: /],
    ['a misspelt key', edited((v) => (v['steps'][1].fualts = [])), /steps\.1: .*fualts/],
    [
      'an ITS that the VM does not have',
      edited((v) => {
        v['vm'].more_its_bases = ['0x9000000'];
        v['steps'].push({ op: 'save_tables', its: 2, ret: 0 });
      }),
      /steps\.\d+\.its: there is no ITS 2/,
    ],
    ['an unknown kernel', edited((v) => (v['kernel'] = '2.4')), /kernel: /],
    ['no vCPU', edited((v) => (v['vm'].vcpu_ids = [])), /vm\.vcpu_ids: /],
    ['an array', '[]', /^x\.jsonl:1: the line: /],
  ];
  for (const [name, source, message] of cases) {
    it(`${name} is refused, naming line and field`, () => {
      const error = refusal(source);
      expect(error.code).toBe('BAD_IMAGE');
      expect(error.message).toMatch(message);
    });
  }

  it('of any kind never throw anything else', () => {
    fc.assert(
      fc.property(fc.json(), (json) => {
        expect(refusal(json).code).toBe('BAD_IMAGE');
      }),
    );
  });
});

describe('a replay notices', () => {
  const [vector] = parseVectors(line, 'A') as [Vector];
  const withStep = (op: string, edit: (step: Json) => void): Vector => {
    const copy = structuredClone(vector);
    // The first step of that kind in which every list says something.
    const step = copy.steps.find(
      (each) =>
        each.op === op &&
        (op !== 'gicr_set' || 'regs' in each) &&
        (op !== 'save_tables' || 'mem' in each) &&
        Object.values(each).every((value) => !Array.isArray(value) || value.length > 0),
    )!;
    edit(step);
    return copy;
  };
  const whatOf = (changed: Vector): string => {
    const result = replayVector(changed);
    return result.kind === 'ok' ? 'nothing' : result.first.what;
  };

  it('nothing in the vector as recorded', () => expect(whatOf(vector)).toBe('nothing'));

  it.each<[string, string, (step: Json) => void, RegExp]>([
    ['another return value', 'restore_tables', (s) => (s['ret'] = -22), /^ret$/],
    ['a fault less', 'restore_tables', (s) => s['faults'].pop(), /^faults$/],
    ['faults in another order', 'restore_tables', (s) => s['faults'].reverse(), /^faults$/],
    ['another memory word', 'save_tables', (s) => (s['mem'][0][1] ^= 1n), /^mem$/],
    ['a memory word less', 'save_tables', (s) => s['mem'].pop(), /^mem$/],
    ['a register that changed unannounced', 'gicr_set', (s) => (s['regs'] = {}), /^GICR/],
    ['a register that did not change', 'gicr_set', (s) => (s['regs']['GITS_CBASER'] = 1n), /^G/],
    ['another LPI state', 'state', (s) => s['lpis'][0].splice(4, 1, 1), /^lpis$/],
    ['an entry less', 'state', (s) => s['ites'].pop(), /^ites$/],
  ])('%s', (_, op, edit, what) => {
    expect(whatOf(withStep(op, edit))).toMatch(what);
  });
});
