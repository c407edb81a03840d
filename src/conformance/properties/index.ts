import { type AnyProperty } from '../property.js';
import { againMakesProgress } from './again-makes-progress.js';
import { badInputRefused } from './bad-input-refused.js';
import { boundedInFlight } from './bounded-in-flight.js';
import { closeIsDefinite } from './close-is-definite.js';
import { coverageIsTrue } from './coverage-is-true.js';
import { duplicateWakes } from './duplicate-wakes.js';
import { exitWhileBlocked } from './exit-while-blocked.js';
import { freezeIsReversible } from './freeze-is-reversible.js';
import { handlerDeathIsSeen } from './handler-death-is-seen.js';
import { installOnce } from './install-once.js';
import { kernelAccessBlocks, kernelAccessRetries } from './kernel-access.js';
import { noLostWake } from './no-lost-wake.js';
import { noTornPage } from './no-torn-page.js';
import { noZeroLeak } from './no-zero-leak.js';
import { poisonGoesWithThePage, poisonIsSticky, poisonOutlastsRequests } from './poison-is-sticky.js';
import { prefetchNeverResurrects } from './prefetch-never-resurrects.js';
import { publishBeforePresent } from './publish-before-present.js';
import { removeBeforeFault } from './remove-before-fault.js';
import { removedReadsZero } from './removed-reads-zero.js';
import { sourceFailureIsLoud } from './source-failure-is-loud.js';
import { unsupportedChangesNothing } from './unsupported-changes-nothing.js';
import { viewsDieSafely } from './views-die-safely.js';
import { writeProtectIsAtomic } from './write-protect-is-atomic.js';

/** Every property, in the order in which they are reported. */
export const PROPERTIES: readonly AnyProperty[] = [
  installOnce,
  duplicateWakes,
  noLostWake,
  noZeroLeak,
  noTornPage,
  publishBeforePresent,
  removedReadsZero,
  removeBeforeFault,
  prefetchNeverResurrects,
  againMakesProgress,
  closeIsDefinite,
  coverageIsTrue,
  unsupportedChangesNothing,
  badInputRefused,
  sourceFailureIsLoud,
  handlerDeathIsSeen,
  boundedInFlight,
  poisonIsSticky,
  poisonOutlastsRequests,
  poisonGoesWithThePage,
  writeProtectIsAtomic,
  freezeIsReversible,
  kernelAccessBlocks,
  kernelAccessRetries,
  exitWhileBlocked,
  viewsDieSafely,
];
