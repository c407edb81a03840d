import { describe, expect, test, vi } from 'vitest';
import { type Failure } from 'demand-paging/conformance';
import { type CaseResult } from 'demand-paging/scenarios';
import { type CellResult } from '../../src/cli/evaluation/cell.js';
import { hazardRow, type MatrixRow } from '../../src/cli/evaluation/matrix.js';
import { shows, THREAD_HAZARDS, type ThreadHazard } from '../../src/cli/evaluation/thread-hazards.js';

// Every sentence is another one: whatever is decided by one now is decided otherwise.
vi.mock('../../src/conformance/text.js', async (original) => ({
  ...(await original<object>()),
  failureText: () => 'edited',
}));
vi.mock('../../src/scenarios/case-text.js', () => ({ caseText: () => 'edited' }));

const accessor = { kind: 'accessor', site: 'vcpu-load', number: 1 } as const;
const access = { accessor, page: 0, offset: 0 } as const;
const contents = { access, page: 0, expected: 'original' } as const;

const FAILURES = {
  'zeros-read': { kind: 'zeros-read', ...contents, seen: 'zeros' },
  'torn-page': { kind: 'torn-page', ...contents, seen: [] },
  'stale-contents': { kind: 'stale-contents', ...contents, seen: 'original', expected: 'zeros' },
  'not-stopped': { kind: 'not-stopped', access, page: 'marked-missing' },
  'exits, seen to err': { kind: 'wrong-effect', site: 'vcpu-load', declared: 'exits', seen: 'errors' },
  'blocks, seen to err': { kind: 'wrong-effect', site: 'vcpu-load', declared: 'blocks', seen: 'errors' },
  stuck: { kind: 'stuck', awaited: { tasks: [access] }, waiting: [access] },
  'no-end': { kind: 'no-end', steps: 9, awaited: { tasks: [access] } },
} as const satisfies Record<string, Failure>;

/** What shows a hazard of a property, and nothing else of these. */
const SHOWN_BY: Readonly<Record<string, keyof typeof FAILURES>> = {
  'published-early': 'zeros-read',
  'half-a-page': 'torn-page',
  'late-set-ignored': 'not-stopped',
  'unreadable-bitmap': 'exits, seen to err',
  'exist-wakes-no-waiter': 'stuck',
  'ready-overtakes-accept': 'stuck',
  'balloon-unannounced': 'stale-contents',
};

const ofProperties = THREAD_HAZARDS.filter(({ shown }) => shown.by === 'property');

const failing = (property: string, failure: Failure): CellResult => ({
  property,
  site: 'vcpu-load',
  outcome: 'fails',
  failure,
  trace: [],
  runs: 1,
});

const rowOf = (parts: Partial<MatrixRow>): MatrixRow => ({
  target: 'one',
  facts: undefined,
  declared: undefined,
  unavailable: undefined,
  refused: undefined,
  cells: [],
  scenarios: [],
  ...parts,
});

const waiters = (guest: 'right' | 'zeros' | 'waits', kvm: 'right' | 'zeros' | 'waits'): CaseResult => ({
  case: 'dies-with-descriptor',
  outcome: 'silent',
  seen: { kind: 'waiters', guest, kvm },
  figures: {},
  trace: [],
});

const hazard = (name: string): ThreadHazard => THREAD_HAZARDS.find((each) => each.name === name)!;

describe('what shows a hazard', () => {
  test('each hazard of a property is in the table', () => {
    expect(ofProperties.map(({ name }) => name).sort()).toEqual(Object.keys(SHOWN_BY).sort());
  });

  test.each(ofProperties)(
    '$name: the kind of a failure and its facts, and no sentence',
    ({ name, shown }) => {
      const property = (shown as { readonly property: string }).property;
      const showing = Object.entries(FAILURES).flatMap(([of, failure]) =>
        shows(shown, failing(property, failure)) ? [of] : [],
      );
      expect(showing).toEqual([SHOWN_BY[name]]);
      const row = rowOf({ cells: [failing(property, FAILURES[SHOWN_BY[name]!])] });
      expect(hazardRow(hazard(name), [row])).toMatchObject({ has: [{ target: 'one' }], hasNot: [] });
    },
  );

  test.each([
    ['handler-death-zeros', waiters('right', 'zeros'), true],
    ['handler-death-zeros', waiters('waits', 'right'), false],
    ['handler-death-hangs', waiters('waits', 'right'), true],
    ['handler-death-hangs', waiters('zeros', 'zeros'), false],
  ] as const)('%s: what the guest or KVM got', (name, result, has) => {
    const scenarios = [
      { scenario: 'handler-process', uapi: 'one', outcome: 'silent', cases: [result] },
    ] as const;
    const row = hazardRow(hazard(name), [rowOf({ scenarios })]);
    expect(row.has.length).toBe(has ? 1 : 0);
    expect(row.hasNot.length).toBe(has ? 0 : 1);
  });
});
