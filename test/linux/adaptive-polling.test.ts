import { expect, test } from 'vitest';
import { FaultBatch } from '../../src/api/index.js';
import { AdaptivePolling } from '../../src/linux/adaptive-polling.js';

/** Polls a port that finds `found` rows at its poll number `at`, and is kicked after each poll batch. */
function polling(): { poll: () => number; next: (found: number) => void; polls: () => number } {
  let rows = 0;
  let polls = 0;
  const polled = new AdaptivePolling({
    drain: () => {
      polls++;
      return rows;
    },
    isKicked: () => true,
  });
  const batch = new FaultBatch(8);
  return {
    poll: () => polled.poll(batch),
    next: (found) => (rows = found),
    polls: () => polls,
  };
}

/** Which of the next sleeps are preceded by polls. */
const pattern = ({ poll, polls }: ReturnType<typeof polling>, sleeps: number): string =>
  Array.from({ length: sleeps }, () => {
    const before = polls();
    poll();
    return polls() > before ? 'p' : '-';
  }).join('');

test('adaptive polling: nothing arrives: each miss doubles the number of sleeps without polling', () => {
  expect(pattern(polling(), 16)).toBe('p-p--p----p-----');
});

test('adaptive polling: rows arrive: are returned, and every sleep is preceded by polls again', () => {
  const port = polling();
  expect(pattern(port, 6)).toBe('p-p--p');
  port.next(3);
  expect(pattern(port, 4)).toBe('----');
  expect(port.poll()).toBe(3);
  expect(pattern(port, 3)).toBe('ppp');
  port.next(0);
  expect(pattern(port, 4)).toBe('p-p-');
});

test('adaptive polling: a kick: ends after one poll batch', () => {
  const port = polling();
  expect(port.poll()).toBe(0);
  expect(port.polls()).toBeLessThanOrEqual(8);
});
