export { conformance, inapplicable, titleOf, type ConformanceOptions, type Runner } from './conformance.js';
export { checkProperties, checkProperty, type CheckOptions, type Report } from './check.js';
export { PROPERTIES } from './properties/index.js';
export {
  property,
  PROPERTY_NAMES,
  type AnyProperty,
  type Manifest,
  type Property,
  type PropertyName,
} from './property.js';
export * from './subject.js';
export * from './stage.js';
export { Contents, type Seen } from './contents.js';
export { PropertyFailure, Stuck } from './failure.js';
export { ScriptedSource, type SourceFault } from './scripted-source.js';
export { openFatalSource, type FatalSourceOptions } from './fatal-source.js';
