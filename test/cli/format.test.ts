import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DemandPagingError } from 'demand-paging';
import { describeFailure, UsageError } from '../../src/cli/failure.js';
import { paragraph } from '../../src/cli/paragraph.js';
import { bytes, count, duration, percent, plural } from '../../src/cli/quantity.js';
import { textTable } from '../../src/cli/text-table.js';

describe('quantities', () => {
  test('bytes', () => {
    expect([0, 1023, 1024, 1536, 48 * 1024 * 1024, 2 ** 40].map(bytes)).toEqual([
      '0 B',
      '1023 B',
      '1 KiB',
      '1.5 KiB',
      '48 MiB',
      '1 TiB',
    ]);
  });
  test('counts, shares, durations', () => {
    expect([0, 999, 1000, 50_331_648].map(count)).toEqual(['0', '999', '1 000', '50 331 648']);
    expect([percent(1, 3), percent(0, 0)]).toEqual(['33.3 %', '0.0 %']);
    expect([0.0871, 1.25, 12.4, 999, 3400].map(duration)).toEqual([
      '87 µs',
      '1.25 ms',
      '12 ms',
      '999 ms',
      '3.40 s',
    ]);
    expect([plural(1, 'page'), plural(2, 'page'), plural(0, 'entry', 'entries')]).toEqual([
      '1 page',
      '2 pages',
      '0 entries',
    ]);
  });
});

test('a paragraph keeps its words and its width', () => {
  const word = fc.stringMatching(/^[a-z]{1,9}$/);
  fc.assert(
    fc.property(
      fc.array(word, { minLength: 1 }),
      fc.integer({ min: 20, max: 80 }),
      fc.integer({ min: 0, max: 8 }),
      (words, columns, indent) => {
        const lines = paragraph(`  ${words.join(' ')}`, columns, indent);
        expect(
          lines
            .join(' ')
            .split(/ +/)
            .filter((each) => each !== ''),
        ).toEqual(words);
        for (const [index, line] of lines.entries()) {
          expect(line.length).toBeLessThanOrEqual(columns);
          expect(line.startsWith(' '.repeat(index === 0 ? 2 : indent))).toBe(true);
        }
      },
    ),
  );
});

test('a table aligns its figures and ends no line with spaces', () => {
  expect(
    textTable(
      [
        ['a', 5],
        ['long', 1234],
      ],
      { head: ['name', 'n'], figures: [1] },
    ),
  ).toEqual(['  name     n', '  a        5', '  long  1234']);
});

describe('failures', () => {
  test('of the library: code, message, hint, status 1', () => {
    const error = new DemandPagingError('NO_DEVICE', 'no such thing', { hint: 'Make one' });
    expect(describeFailure(error)).toEqual({
      lines: ['error NO_DEVICE: no such thing', 'hint: Make one'],
      status: 1,
    });
  });
  test('of usage: status 2', () => {
    expect(describeFailure(new UsageError('not so'))).toEqual({ lines: ['error: not so'], status: 2 });
    expect(describeFailure(new RangeError('too much'))).toEqual({ lines: ['error: too much'], status: 2 });
  });
  test('anything else shows where it comes from', () => {
    expect(describeFailure(new Error('a bug')).lines[0]).toMatch(/^error: Error: a bug\n +at /);
  });
});
