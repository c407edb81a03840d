import { type RecordableHistogram } from 'node:perf_hooks';
import { type MessagePort } from 'node:worker_threads';
import { type PageRange } from './address.js';
import { type PortPlace } from './backend.js';
import { type Supports } from './capability.js';
import { type LayoutShape } from './layout.js';
import { type Command } from './notice.js';
import { type SharedPageStates } from './page-states.js';
import { type PagerPolicy } from './policy.js';
import { type SourceRef } from './source.js';

/** What the control thread hands to a resolver's worker. */
export interface ResolverWorkerData {
  readonly layout: LayoutShape;
  readonly pages: readonly PageRange[];
  readonly states: SharedPageStates;
  readonly counters: SharedArrayBuffer;
  /** See {@link WORD}. */
  readonly words: SharedArrayBuffer;
  readonly place: Extract<PortPlace, { where: 'worker' }>;
  readonly supports: Supports;
  readonly source: SourceRef;
  readonly policy: PagerPolicy;
  readonly latency: RecordableHistogram;
}

/** What the thread is started with: its end of the control port, on which {@link ResolverWorkerData} is the first message. */
export interface ResolverWorkerPort {
  readonly control: MessagePort;
}

/** Words shared with the control thread. */
export const WORD = {
  /** Commands sent and not yet drained. */
  commands: 0,
  /** Notices the control thread has handled. */
  handled: 1,
  /** Odd while the resolver is inside a synchronous source; counts up by two a call. */
  reading: 2,
  /** 1: whatever waited has been seen to, as the resolver was told or because it failed. What decides who cleans up. */
  settled: 3,
  /** See {@link InstallLock}. */
  installing: 4,
  length: 5,
} as const;

export interface CommandMessage {
  readonly id: number;
  readonly command: Command;
}
