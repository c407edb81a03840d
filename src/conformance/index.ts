export { openManifest } from './manifest.js';
export { conformance, inapplicable, titleOf, type ConformanceOptions, type Runner } from './conformance.js';
export { checkProperties, checkProperty, type CheckOptions } from './check.js';
export {
  failsText,
  resultText,
  SKIPPED_TEXT,
  type Fails,
  type PropertyResult,
  type Replay,
  type Result,
} from './result.js';
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
  type Paging,
  type Setting,
  type Environment,
  type Task,
  type Touch,
  type TouchRequest,
  type Wait,
} from './environment.js';
export {
  Contents,
  GUEST_WORDS,
  guestCode,
  guestEntry,
  isNamed,
  type Seen,
  type WordRun,
} from './contents.js';
export { condensed, type Timed, type TraceEntry, type TraceEvent } from './trace.js';
export { eventWords, formatEvents, formatTrace } from './format-trace.js';
export { canRead, canWrite, waitingSites } from './scenario.js';
export {
  must,
  PropertyFailure,
  type AccessEnd,
  type AccessRef,
  type Awaited,
  type EffectSeen,
  type Expected,
  type Failure,
  type Operation,
  type OperationRef,
  type ProcessFailure,
} from './failure.js';
export {
  mustBeServed,
  mustEnd,
  mustNotReadZeros,
  mustRead,
  mustReadBytes,
  mustSucceed,
} from './expectations.js';
export { FAILURE_KINDS, failureText, seenText } from './text.js';
export { ScriptedSource, type SourceFault } from './scripted-source.js';
export { openFatalSource, type FatalSourceOptions } from './fatal-source.js';
