export {
  CASE_OUTCOMES,
  runScenario,
  worstOf,
  type CaseOutcome,
  type CaseResult,
  type CaseSeen,
  type Got,
  type Scenario,
  type ScenarioResult,
  type WaiterGot,
} from './scenario.js';
export { caseText } from './case-text.js';
export { formatScenarioTrace, type ScenarioEntry, type ScenarioEvent } from './scenario-event.js';
export { SCENARIOS } from './list.js';
export { inUse, UAPIS, type UapiInUse } from './uapis.js';
export { balloon } from './balloon.js';
export { freeze } from './freeze.js';
export { handlerProcess } from './handler-process.js';
export { hugePage } from './huge-page.js';
export { itsRestore } from './its-restore.js';
export { manyVcpus } from './many-vcpus.js';
export { poison } from './poison.js';
export { vhost } from './vhost.js';
export { PUBLISHED_RATES, publishedFits, type NamedFit } from './published-rates.js';
export {
  closedQueueRate,
  fitClosedQueue,
  fitPowerLaw,
  fitUniversalScalability,
  measureFit,
  type Fit,
  type Prediction,
  type RatePoint,
  type ScalingModel,
} from './scaling-model.js';
