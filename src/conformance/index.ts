export { openManifest } from './manifest.js';
export { conformance, inapplicable, titleOf, type ConformanceOptions, type Runner } from './conformance.js';
export {
  checkProperties,
  checkProperty,
  type CheckOptions,
  type Counterexample,
  type Report,
} from './check.js';
export { PROPERTIES } from './properties/index.js';
export { unnoticedAccess } from './properties/unnoticed-access.js';
export {
  property,
  PROPERTY_NAMES,
  type AnyProperty,
  type Manifest,
  type Property,
  type PropertyName,
} from './property.js';
export {
  type Engine,
  type RealAccessor,
  type RealResult,
  type RealSubject,
  type Stepped,
  type SteppedAccess,
  type SteppedAccessRequest,
  type SteppedSubject,
  type Stepping,
  type Subject,
} from './subject.js';
export {
  pause,
  settled,
  type Body,
  type Deed,
  type Paging,
  type Setting,
  type Stage,
  type Task,
  type Touch,
  type TouchRequest,
  type Wait,
} from './stage.js';
export { Contents, GUEST_WORDS, guestCode, guestEntry, isNamed, type Seen } from './contents.js';
export { type TimelineEntry } from './timeline.js';
export { narrate } from './narration.js';
export { canRead, canWrite, waitingSites } from './scenario.js';
export { PropertyFailure, Stuck } from './failure.js';
export { ScriptedSource, type SourceFault } from './scripted-source.js';
export { openFatalSource, type FatalSourceOptions } from './fatal-source.js';
