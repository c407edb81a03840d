import { type Gpa, type Program, WINDOW_BYTES, hint } from '../api/index.js';
import type { Status } from './errno.js';
import type { VgicState } from './vgic-state.js';
import { type Address, type Window, Windows, windowStart } from './windows.js';
import { Work } from './work.js';

/** One run of an operation: the GIC it works on and its view of guest memory. */
export interface Run {
  readonly vgic: VgicState;
  readonly windows: Windows;
  readonly work: Work;
}

/** What a hint names: the structure that is, or may be, read next. */
export type Structure =
  | 'collection-table'
  | 'device-table'
  | 'level-1-table'
  | 'translation-table'
  | 'lpi-configuration'
  | 'lpi-pending';

/** Starts a run with an empty cache. */
export const startRun = (vgic: VgicState, undoable = false): Run => ({
  vgic,
  windows: new Windows(undoable, vgic.limits),
  work: new Work(vgic.limits),
});

/** Runs `body` and writes what it left dirty, whether it succeeded or not; its own failure wins. */
export function* runFlushed(vgic: VgicState, body: (run: Run) => Program<Status>): Program<Status> {
  const run = startRun(vgic);
  const status = yield* body(run);
  const flushed = yield* run.windows.flush();
  return status !== 0 ? status : flushed;
}

/**
 * Reads a window of an LPI table. The hint just before the read says that no decision depends on the
 * content, only state: a planner may go on without waiting for it.
 */
export function* readLpiTable(run: Run, address: Address, structure: Structure): Program<Window | number> {
  const known = run.windows.known(address);
  if (known !== undefined) return known;
  yield* hint(structure, [{ start: BigInt(windowStart(address)) as Gpa, length: BigInt(WINDOW_BYTES) }]);
  return yield* run.windows.read(address);
}

/** Says that `bytes` from `start` may be read soon. */
export function* mayRead(structure: Structure, start: Address, bytes: number): Program<void> {
  if (bytes > 0) yield* hint(structure, [{ start: BigInt(start) as Gpa, length: BigInt(bytes) }]);
}
