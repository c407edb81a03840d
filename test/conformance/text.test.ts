import { describe, expect, test } from 'vitest';
import {
  type AccessRef,
  type Failure,
  FAILURE_KINDS,
  failureText,
  formatTrace,
  type TraceEntry,
} from 'demand-paging/conformance';

const accessor = { kind: 'accessor', site: 'vcpu-load', number: 3 } as const;
const access: AccessRef = { accessor, page: 7, offset: 0 };
const read = { access, page: 7, seen: 'zeros', expected: 'original' } as const;
const awaited = { tasks: [access, { operation: 'ensure', pages: { first: 1, count: 2 } }] } as const;

type Sample<Kind> = Omit<Extract<Failure, { kind: Kind }>, 'kind'>;

/** Facts of each kind. */
const SAMPLES: { readonly [Kind in Failure['kind']]: Sample<Kind> } = {
  'zeros-read': read,
  'stale-contents': { ...read, seen: 'original', expected: 'zeros' },
  'torn-page': {
    access: undefined,
    page: 7,
    seen: [
      { words: 512, of: 'page', value: 7 },
      { words: 512, of: 'zeros' },
    ],
    expected: 'original-or-zeros',
  },
  'foreign-contents': { ...read, seen: [{ words: 2, of: 'other', value: 0xee }], expected: 'written' },
  'wrong-end': { access, end: 'errored', errno: 14, expected: ['done'] },
  'not-stopped': { access, page: 'frozen' },
  'not-noticed': { access, seen: 'zeros' },
  'fault-for-poison': { access },
  'wrong-effect': { site: 'vcpu-load', declared: 'exits', seen: 'not-delivered' },
  'wrong-address': { access, reported: 8 },
  'declared-but-refused': { verb: 'move' },
  'not-declared-but-done': { verb: 'direct', outcome: 'installed', done: 1 },
  'not-declared-but-changed': { verb: 'move', page: 1, seen: 'absent' },
  'not-declared-but-discarded': { error: undefined },
  'malformed-but-done': { mistake: 'half a page', outcome: 'installed', done: 1 },
  'malformed-but-changed': { mistake: 'half a page', page: 1 },
  'wrong-outcome': { verb: 'copy', page: 1, outcome: 'failed', done: 0, errno: 12, expected: 'installed' },
  'page-absent': { page: 1, because: 'brought' },
  'operation-failed': { operation: { operation: 'freeze', pages: { first: 0, count: 2 } }, error: 'KERNEL' },
  'operation-granted': { operation: { operation: 'close' }, after: 'close' },
  'event-lost': { event: 'written', access },
  'wrong-events': { seen: [], expected: ['source-failed'] },
  'too-many-fetches': { seen: 3, allowed: 2 },
  'closed-memory-read': { page: 1, error: undefined },
  stuck: { awaited, waiting: [access] },
  'no-end': { steps: 20, awaited: { what: 'its-turn' } },
  'timed-out': { after_ms: 60_000, awaited: { what: 'a-fetch' } },
  'close-stuck': { after_ms: 40_000 },
  thrown: { error: 'Error: a null pointer' },
  'no-answer': { after_ms: 4000 },
  idle: {},
  'process-ended': { how: 'status 7' },
  'not-evaluated': { last: 'no-zero-leak at vcpu-load' },
};

const failureOf = (kind: Failure['kind']): Failure => ({ kind, ...SAMPLES[kind] }) as Failure;

describe('the sentence of a failure', () => {
  test('every kind: one of its own, with every fact filled in', () => {
    expect([...FAILURE_KINDS].sort()).toEqual(Object.keys(SAMPLES).sort());
    const sentences = FAILURE_KINDS.map((kind) => failureText(failureOf(kind)));
    expect(new Set(sentences).size).toBe(sentences.length);
    for (const sentence of sentences) expect(sentence).not.toMatch(/undefined|\[object|NaN/);
  });

  test.each([
    ['zeros-read', 'vcpu-load#3 of page 7 read zeros; expected: its contents'],
    [
      'torn-page',
      'page 7 holds 512 words of page 7, then 512 words of zeros; expected: its contents or zeros, whole',
    ],
    ['wrong-end', 'vcpu-load#3 of page 7 is errored (EFAULT); expected: done'],
    [
      'stuck',
      'nothing goes on any more, waiting for vcpu-load#3 of page 7, ensure 1+2 to end; waiting accesses: vcpu-load#3 of page 7',
    ],
  ] as const)('%s: %s', (kind, sentence) => {
    expect(failureText(failureOf(kind))).toBe(sentence);
  });
});

test('a trace: one line an event, with vCPUs numbered as they appear', () => {
  const entries: readonly TraceEntry[] = [
    { moment: 1, actor: accessor, kind: 'access-starts', write: false, page: 7 },
    { moment: 2, actor: accessor, kind: 'stopped-at', fault: 'missing', page: 7 },
    { moment: 3, actor: { kind: 'resolver' }, kind: 'fault-read', fault: 'missing', page: 7 },
    { moment: 9, actor: accessor, kind: 'access-ends', end: 'done', write: false, seen: 'original', page: 7 },
  ];
  expect(formatTrace(entries)).toEqual([
    '     1  vCPU 0 (#3)  loads from page 7',
    '     2  vCPU 0 (#3)  is stopped at page 7 (missing)',
    '     3  resolver     reads a missing fault of page 7',
    '     9  vCPU 0 (#3)  has read page 7: the contents',
  ]);
});
