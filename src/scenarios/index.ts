export {
  GRADES,
  playScenario,
  worstOf,
  type CaseVerdict,
  type Grade,
  type Scenario,
  type ScenarioVerdict,
} from './scenario.js';
export { SCENARIOS } from './list.js';
export { judged, UAPIS, type JudgedUapi } from './uapis.js';
export { balloon } from './balloon.js';
export { freeze } from './freeze.js';
export { handlerProcess } from './handler-process.js';
export { hugePage } from './huge-page.js';
export { itsRestore } from './its-restore.js';
export { manyVcpus } from './crowd.js';
export { poison } from './poison.js';
export { vhost } from './vhost.js';
export { PUBLISHED_RATES, publishedFits, type NamedFit } from './published-rates.js';
export {
  closedQueueRate,
  fitClosedQueue,
  fitPowerLaw,
  fitUniversalScalability,
  judgeFit,
  type Fit,
  type Prediction,
  type RatePoint,
  type ScalingModel,
} from './scaling-model.js';
