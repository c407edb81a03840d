export {
  ACCESS_CLASSES,
  ACCESS_SITES,
  SITE_NAMES,
  classOf,
  coverageGaps,
  effectAt,
  unmediatedSites,
} from './api/access.js';
export type { AccessClass, AccessSite, Coverage, Effect, SiteCoverage } from './api/access.js';
export { fileOffset, gpa, hex, hva } from './api/address.js';
export type {
  AddressRange,
  FileOffset,
  Gpa,
  GpaRange,
  Hva,
  HvaRange,
  PageIndex,
  PageRange,
} from './api/address.js';
export { openPort } from './api/backend.js';
export type {
  AddedRegions,
  Attachment,
  Backend,
  FaultPort,
  OpenPort,
  PortPlace,
  RawMemory,
  Shard,
  Wait,
} from './api/backend.js';
export { missingVerbs, requirements } from './api/capability.js';
export type { Requirement, Requirements, Supports } from './api/capability.js';
export { settleContents } from './api/contents.js';
export { drive, driveErroring, driveRetrying, driveSync } from './api/drive.js';
export type { Access, AsyncDriveOptions, DriveOptions, ProgramMemory } from './api/drive.js';
export { DemandPagingError, ERROR_CODES, asDemandPagingError, errnoName } from './api/error.js';
export type { ErrorCode, ErrorDetails, PlainError } from './api/error.js';
export type { PagerEmitter, PagerEvents } from './api/events.js';
export type { AfterDiscard, DiscardOptions } from './api/discards.js';
export { FaultBatch, ROW, WRITE } from './api/fault.js';
export type { Fault, FaultKind, MemoryEvent, OutsideFault } from './api/fault.js';
export { GuestMemory } from './api/guest-memory.js';
export type { GuestMemoryOptions } from './api/guest-memory.js';
export type { Hold } from './api/holds.js';
export { MAX_LAYOUT_PAGES, MemoryLayout } from './api/layout.js';
export type { ContentsChoice, LayoutShape, MemoryKind, Region, RegionSpec } from './api/layout.js';
export type {
  Command,
  CommandReply,
  FetchReason,
  InstallReason,
  MissingAtClose,
  ResolverEvent,
  OutsideAnswer,
  PrefetchResult,
} from './api/resolver-protocol.js';
export { PLANES, PageStates } from './api/page-states.js';
export type { PageState, PageStatesSnapshot, Plane, SharedPageStates } from './api/page-states.js';
export { Pager, openPager } from './api/pager.js';
export type { AddRegionsOptions, CloseOptions, PagerOptions } from './api/pager.js';
export { DEFAULT_POLICY, completePolicy } from './api/policy.js';
export type { FailurePolicy, ForkPolicy, OutsidePolicy, PagerPolicy } from './api/policy.js';
export { WINDOW_BYTES, hint, isVisible, readWindow, writeBytes } from './api/program.js';
export type { Answer, Ask, Errno, HintAsk, Program, ReadAsk, VisibleAsk, WriteAsk } from './api/program.js';
export { FLAG, OUTCOME, OUTCOMES, ResolutionBatch, VERB, VERBS } from './api/resolution.js';
export type { Outcome, Resolution, Verb } from './api/resolution.js';
export { Resolver } from './api/resolver.js';
export type { ResolverOptions } from './api/resolver.js';
export { Signal, runResolver } from './api/resolver-loop.js';
export type { ResolverLoopOptions } from './api/resolver-loop.js';
export type { ReadAnswer, SparseRead, ZeroRange } from './api/read-answer.js';
export { isModuleSource, isPortSource, openSource, servePort } from './api/source.js';
export type {
  ModuleSourceRef,
  OpenSource,
  PageSource,
  PortSourceRef,
  SourceRef,
  SourceReply,
  SourceRequest,
} from './api/source.js';
export { COUNTERS, Counters, summarise } from './api/statistics.js';
export type { Counter, HistogramLike, LatencySummary, Statistics } from './api/statistics.js';
export type { VcpuFailure, VcpuExitResult, VcpuExitHandler } from './api/vcpu-exit-handler.js';
