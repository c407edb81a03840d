import { type RecordableHistogram } from 'node:perf_hooks';
import { type PageRange } from './address.js';
import { type Shard } from './backend.js';
import { type CrashCleanup } from './crash-cleanup.js';
import { type Supports } from './capability.js';
import { DemandPagingError } from './error.js';
import { type MemoryLayout } from './layout.js';
import { type Command, type CommandReply, type ResolverEvent } from './resolver-protocol.js';
import { type PageStates } from './page-states.js';
import { type PagerPolicy } from './policy.js';
import { type SourceRef, isModuleSource, isPortSource } from './source.js';
import { type Counters } from './statistics.js';

/** What every kind of host is made of. */
export interface HostOptions {
  readonly layout: MemoryLayout;
  readonly states: PageStates;
  readonly shard: Shard;
  readonly supports: Supports;
  readonly source: SourceRef;
  readonly policy: PagerPolicy;
  readonly latency: RecordableHistogram;
  /** Does what the resolver's thread has not done, where there is one. */
  readonly cleanup: CrashCleanup;
  notify(event: ResolverEvent): void;
  /**
   * The resolver ended without an `end` command, after it had started. Waiting accesses were let go, as far
   * as that was possible.
   */
  died(error: DemandPagingError, waiters: 'poisoned' | 'blocked'): void;
}

/** Where a resolver runs, as the pager sees it. */
export interface ResolverHost {
  readonly shard: Shard;
  /** The pages that it serves: its shard's at first. Adding and removing regions changes them. */
  readonly pages: PageRange[];
  readonly counters: Counters;
  /** Bytes the source has. */
  readonly sourceLength: number;
  /**
   * Sends a command. Rejects with its error, HANDLER_DIED if the resolver ends before answering, CLOSED after
   * it ended.
   */
  send(command: Command): Promise<unknown>;
  /**
   * Resolves when the resolver has ended, for whatever reason: with why accesses may still wait, where they
   * could not be let go.
   */
  readonly ended: Promise<DemandPagingError | undefined>;
  /** Lets whatever waits go at the process's end, where the resolver lives in this isolate. Synchronous. */
  abandon?(error: DemandPagingError): void;
}

/** Settles a caller's promise from a resolver's answer. */
export function settleCall(
  reply: CommandReply,
  resolve: (value: unknown) => void,
  reject: (error: Error) => void,
): void {
  if (reply.ok) resolve(reply.value);
  else reject(DemandPagingError.fromPlain(reply.error));
}

/** Refuses sources that cannot reach where the resolvers run. Throws NOT_SUPPORTED. */
export function checkSourceReach(source: SourceRef, shards: readonly Shard[]): void {
  const workers = shards.filter(({ port }) => port.where === 'worker');
  if (workers.length > 0 && !isModuleSource(source) && !isPortSource(source)) {
    throw new DemandPagingError('NOT_SUPPORTED', 'a source object does not cross to the resolver thread', {
      hint: 'Name it by module and export, or serve it over a MessagePort with servePort()',
    });
  }
  if (isPortSource(source) && shards.length > 1) {
    throw new DemandPagingError('NOT_SUPPORTED', 'a source behind one port cannot serve several resolvers', {
      hint: 'Use one shard, or a module source',
    });
  }
}
