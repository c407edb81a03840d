import { describe, expect, test } from 'vitest';
import { checkProperties, checkProperty, PROPERTIES } from 'demand-paging/conformance';
import {
  doubleCopy,
  clampsInput,
  freezeDrops,
  poisonForgotten,
  poisonOutlastsPage,
  presentTooEarly,
  protectsLate,
  tornPage,
  zeroLeak,
  zerosSpread,
  zerosUnheard,
} from './broken/contents.js';
import {
  deathUnseen,
  failsSilently,
  failureTurnedToZeros,
  unboundedInFlight,
  viewsLive,
} from './broken/endings.js';
import {
  coverageTooModest,
  coverageTooProud,
  kernelDoesNotWait,
  kernelNeverRecovers,
  verbTooModest,
  verbTooProud,
} from './broken/manifest.js';
import {
  againSwallowed,
  droppedRemove,
  removeBehindFault,
  resurrects,
  signedAgain,
} from './broken/removal.js';
import { closeLeavesWaiters, deathIsTheEnd, existsWakesNobody, lostWake } from './broken/waking.js';

const SINS = [
  lostWake,
  existsWakesNobody,
  doubleCopy,
  tornPage,
  zeroLeak,
  presentTooEarly,
  droppedRemove,
  removeBehindFault,
  againSwallowed,
  signedAgain,
  resurrects,
  closeLeavesWaiters,
  coverageTooProud,
  coverageTooModest,
  verbTooModest,
  verbTooProud,
  clampsInput,
  failureTurnedToZeros,
  failsSilently,
  deathUnseen,
  unboundedInFlight,
  poisonForgotten,
  poisonOutlastsPage,
  protectsLate,
  freezeDrops,
  kernelDoesNotWait,
  kernelNeverRecovers,
  deathIsTheEnd,
  viewsLive,
  zerosSpread,
  zerosUnheard,
];

/** The same plans and schedules every time: what fails here fails always. */
const SEED = 20231107;
const RUNS = 200;

describe('a backend with one fault', () => {
  test.each(SINS)('$name: fails $breaks', async ({ subject, breaks, mayBreak = [] }) => {
    const reports = await checkProperties(PROPERTIES, subject, {
      runs: RUNS,
      seed: SEED,
      nudge: true,
      shrink: false,
    });
    const failed = new Set(reports.filter(({ outcome }) => outcome === 'failed').map(({ name }) => name));
    expect(failed).toContain(breaks);
    const surprises = [...failed].filter((name) => name !== breaks && !mayBreak.includes(name));
    expect(surprises).toEqual([]);
  });

  test('a failure prints how to play it again, and who did what', async () => {
    const property = PROPERTIES.find(({ name }) => name === 'no-lost-wake')!;
    const first = await checkProperty(property, lostWake.subject, { runs: RUNS, seed: SEED });
    expect(first).toMatchObject({ outcome: 'failed' });
    const { message } = first as { readonly message: string };
    const [, seed, path] = /seed (-?\d+), path '([\d:]+)'/.exec(message)!;
    expect(message).toMatch(/who did what:\n(.*\n)*\s+\d+ {2}vCPU \d+ \(#\d+\)\s+waits for page \d/);
    const again = await checkProperty(property, lostWake.subject, {
      runs: 1,
      seed: Number(seed),
      path: path!,
    });
    expect(again).toMatchObject({ outcome: 'failed', runs: 1 });
    const timeline = (text: string): string => text.slice(text.indexOf('plan: '));
    expect(timeline((again as { readonly message: string }).message)).toBe(timeline(message));
  });

  test('every property is broken by somebody', () => {
    const broken = new Set(SINS.map(({ breaks }) => breaks));
    expect(PROPERTIES.map(({ name }) => name).filter((name) => !broken.has(name))).toEqual([]);
  });
});
