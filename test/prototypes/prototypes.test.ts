import { describe, expect, test } from 'vitest';
import { PROPERTIES, checkProperty, failsText, type SteppedSubject } from 'demand-paging/conformance';
import {
  asyncPf,
  exitOnMissing,
  fileUffd,
  HAZARDS,
  kvmUserfault,
  presentBitmap,
} from 'demand-paging/prototypes';

const RUNS = process.env['DEMAND_PAGING_LONG'] === '1' ? 2000 : 60;
const beside = { userfaultfd: true } as const;

/** Each proposal as its author means it to be used. */
const SUBJECTS: readonly SteppedSubject[] = [
  presentBitmap.subject(),
  presentBitmap.subject(beside),
  { ...presentBitmap.subject({ kernelAccess: 'error' }), name: 'present-bitmap, kernel accesses failing' },
  kvmUserfault.subject(),
  kvmUserfault.subject(beside),
  exitOnMissing.subject(beside),
  asyncPf.subject(),
  asyncPf.subject(beside),
  { ...asyncPf.subject({ mode: 'ring' }), name: 'async-pf ring' },
  // A ring of one entry overflows as soon as two accesses wait.
  {
    ...asyncPf.subject({ mode: 'ring', ringEntries: 1, userfaultfd: true }),
    name: 'async-pf ring of one+uffd',
  },
  fileUffd.subject(),
];

/** Balloons need an announcement, which only a userfaultfd makes: checked in the table of hazards. */
const ALL_PROPERTIES = [...PROPERTIES, ...HAZARDS.filter(({ name }) => name !== 'removed-reads-zero')];

describe.each(SUBJECTS.map((subject) => [subject.name, subject] as const))('%s', (_name, subject) => {
  test('has every property that its manifest allows', { timeout: 300_000 }, async () => {
    const outcomes: string[] = [];
    for (const property of ALL_PROPERTIES) {
      const result = await checkProperty(property, subject, { runs: RUNS });
      expect(result.outcome === 'fails' ? failsText(result) : '').toBe('');
      outcomes.push(result.outcome);
    }
    // A subject that nothing applies to would prove nothing.
    expect(outcomes.filter((outcome) => outcome === 'holds').length).toBeGreaterThan(14);
  });
});
