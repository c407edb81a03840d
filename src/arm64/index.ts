export {
  commandBytes,
  COMMAND_BYTES,
  decodeCommand,
  encodeCommand,
  OPCODE,
  type CommandWords,
  type EventCommand,
  type EventToCollection,
  type InvalidateAll,
  type ItsCommand,
  type MapCollection,
  type MapDevice,
  type MapInterrupt,
  type MoveAll,
  type Synchronise,
  type UnknownCommand,
} from './commands.js';
export { activePriorityRegisters, ICC, type SavedCpuInterface } from './cpu-interface-registers.js';
export {
  decodeEntries,
  dumpImage,
  type DumpedCollection,
  type DumpedDevice,
  type DumpedEntry,
  type DumpOptions,
  type DumpProblem,
  type DumpRegisters,
  type ItsDump,
} from './dump.js';
export { type Status } from './errno.js';
export {
  type GicCommand,
  type GicRegister,
  type RestoreAction,
  type RestoreIssuer,
  type SaveAction,
  type SaveIssuer,
} from './gic-access.js';
export { type SavedInterrupts, type SavedSpis } from './interrupt-registers.js';
export { CONTROL } from './its-operations.js';
export { kernelQuirks, KERNELS, type KernelName, type KernelQuirks } from './kernel-quirks.js';
export { FIRST_LPI } from './lpi-store.js';
export { decodeConfiguration, encodeConfiguration, type LpiConfiguration } from './lpi-tables.js';
export { MSI_VALID_DEVICE, type Msi } from './msi.js';
export { planMemoryOf, type HoldingPager } from './pager-plan-memory.js';
export { type PlanMemory } from './plan-memory.js';
export {
  planCommands,
  planEnableIts,
  planEnableLpis,
  planOperation,
  planRestore,
  planSave,
  planSavePending,
  type Plan,
  type PlanBound,
  type PlannedTouch,
  type PlanOptions,
} from './plan.js';
export {
  CACHE,
  GICD,
  GICR,
  gicrCtlr,
  gicrPendbaser,
  gicrPropbaser,
  gicrTyper,
  GITS,
  gitsBaser,
  gitsCbaser,
  gitsCtlr,
  gitsIidr,
  gitsQueueOffset,
  gitsTyper,
  SAME_AS_INNER,
  SHARE,
  TABLE_TYPE,
} from './registers.js';
export {
  sanitiseBaser,
  sanitiseCbaser,
  sanitisePendbaser,
  sanitisePropbaser,
} from './register-sanitising.js';
export { replayVector, type ReplayDifference, type ReplayOptions, type ReplayResult } from './replay.js';
export {
  beginRestore,
  type BeforeDistributor,
  type BeforeIts,
  type BeforeItsEnable,
  type BeforeRedistributors,
  type BeforeTables,
  type ItsRestored,
  mpidrOf,
  type SavedDistributor,
  type SavedIts,
  type SavedRedistributor,
} from './restore-order.js';
export { affinityOf } from './redistributor-registers.js';
export { type Structure } from './run.js';
export { saveVgic, type VgicShape } from './save-order.js';
export { createSavedVgic, type SavedVgic } from './saved-vgic.js';
export {
  cte,
  dte,
  DTE_NEXT_MAX,
  ENTRY_BYTES,
  ite,
  ITE_NEXT_MAX,
  level1,
  LEVEL2_ENTRIES,
  TABLE_PAGE_BYTES,
} from './table-entries.js';
export { parseVectors, type Vector, type VectorStep, type VectorVm } from './vector.js';
export { operationOf, queueWords, stateOf, type OperationStep } from './vector-operation.js';
export { Vgic, type EntryView, type LpiView } from './vgic.js';
export { type Mode, type VgicOptions } from './vgic-state.js';
export { type WorkBound, WorkLimitError, type WorkLimits } from './work.js';
export { type Decoded, type Field, type WordCodec } from './word-codec.js';
