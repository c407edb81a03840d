import { type RecordableHistogram } from 'node:perf_hooks';
import { type MessagePort } from 'node:worker_threads';
import { type PageRange } from './address.js';
import { type PortPlace } from './backend.js';
import { type Supports } from './capability.js';
import { type LayoutShape } from './layout.js';
import { type Command } from './resolver-protocol.js';
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
  /** No other resolver runs on this thread, which may sleep in the port. */
  readonly ownThread: boolean;
  /** A synchronous source may share the thread, if it is shared. */
  readonly anySource: boolean;
  /** It goes on where a resolver was that ended in the middle of its work, and had not failed. */
  readonly goesOn: boolean;
}

/**
 * What a thread is sent for each resolver: its end of the control port, whose first message is {@link
 * ResolverWorkerData}.
 */
export interface ResolverWorkerPort {
  readonly control: MessagePort;
}

/** Words shared with the control thread. */
export const WORD = {
  /** Commands sent and not yet drained. */
  commands: 0,
  /** Events that the control thread has handled. */
  handled: 1,
  /** Odd while the resolver is inside a call of its source (open, read, close); counts up by two a call. */
  reading: 2,
  /**
   * 1: the resolver has let every waiting access go, by command or because it failed. Decides which thread
   * cleans up.
   */
  settled: 3,
  /** See {@link InstallLock}. */
  installing: 4,
  /**
   * 1 from before messages are taken from the port until their events have been applied: an end in between
   * may lose some.
   */
  taking: 5,
  /**
   * 1: the thread is about to be ended because it does not come back from the source; if it comes back now,
   * it waits.
   */
  condemned: 6,
  /** See {@link OPENING}. */
  opening: 7,
  length: 8,
} as const;

/**
 * How the opening of a resolver ends: it opens its port, or it was abandoned before, and opens none. The
 * descriptor numbers that a port is opened by mean something else once the pager has closed.
 */
export const OPENING = { inProgress: 0, through: 1, givenUp: 2 } as const;

export interface CommandMessage {
  readonly id: number;
  readonly command: Command;
}
