/**
 * Real accessors of guest memory: threads and a process whose only job is to touch it, each from one
 * access site, so that what a missing page does there can be seen.
 */
export { type Accessor, type AccessRequest, type AccessResult } from './accessor.js';
export { ModelAccessor, type ModelRunner } from './model-accessor.js';
export { NATIVE_SITES, startAccessor } from './native-accessor.js';
export { type NativeSite } from './touch.js';
export { addPage, pageHash } from './checksum.js';
export { pagesOf, type Walk, type WalkReport } from './walk.js';
export { WalkTally } from './walk-tally.js';
