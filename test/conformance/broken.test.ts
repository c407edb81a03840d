import { describe, expect, test } from 'vitest';
import { checkProperties, PROPERTIES } from 'demand-paging/conformance';
import {
  doubleCopy,
  clampsInput,
  freezeDrops,
  poisonForgotten,
  presentTooEarly,
  protectsLate,
  tornPage,
  zeroLeak,
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
  protectsLate,
  freezeDrops,
  kernelDoesNotWait,
  kernelNeverRecovers,
  deathIsTheEnd,
  viewsLive,
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

  test('every property but those that need other mechanisms is broken by somebody', () => {
    const broken = new Set(SINS.map(({ breaks }) => breaks));
    expect(PROPERTIES.map(({ name }) => name).filter((name) => !broken.has(name))).toEqual([]);
  });
});
