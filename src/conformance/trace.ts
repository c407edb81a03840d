import {
  type Actor,
  type FaultKind,
  type KernelEvent,
  type MemoryEvent,
  type ResolverEvent,
  type Outcome,
  type PageIndex,
  type PageRange,
  type Verb,
} from '../api/index.js';
import { type Seen } from './contents.js';
import { type AccessEnd, type OperationRef } from './failure.js';

/** What happens on the suite's side: to accesses, at the port, to requests, in time. */
type SuiteEvent = { readonly actor: Actor; readonly page?: PageIndex | undefined } & (
  | { readonly kind: 'access-starts'; readonly write: boolean }
  /** `seen`: what it read. `why`: what ended an accessor that was not told to end. */
  | {
      readonly kind: 'access-ends';
      readonly end: AccessEnd;
      readonly write: boolean;
      readonly errno?: number | undefined;
      readonly seen?: Seen;
      readonly why?: string | undefined;
    }
  | { readonly kind: 'fault-read'; readonly fault: FaultKind }
  | { readonly kind: 'event-read'; readonly event: MemoryEvent['kind']; readonly pages?: PageRange }
  | {
      readonly kind: 'row-settled';
      readonly verb: Verb;
      readonly pages: PageRange;
      readonly wakes: boolean;
      readonly outcome: Outcome;
      readonly done: number;
    }
  | { readonly kind: 'operation-starts'; readonly operation: OperationRef }
  | { readonly kind: 'operation-ends'; readonly operation: OperationRef; readonly error?: string | undefined }
  /** A thread begins to discard or unmap pages. */
  | {
      readonly kind: 'change-starts';
      readonly change: 'dontneed' | 'remove' | 'unmap';
      readonly pages: PageRange;
    }
  | { readonly kind: 'says'; readonly event: ResolverEvent['kind'] }
  | { readonly kind: 'resolver-fails'; readonly error: string }
  | { readonly kind: 'fault-missed' | 'unknown-event-sent' | 'source-made-fatal' | 'all-woken' }
  | { readonly kind: 'clock'; readonly ms: number }
  | { readonly kind: 'fetches-counted'; readonly most: number }
  | { readonly kind: 'close-stuck'; readonly after_ms: number }
  | { readonly kind: 'omitted'; readonly count: number }
);

/** What happens in a run. Plain data. */
export type TraceEvent = KernelEvent | SuiteEvent;

/** An event, and when it was: at which step of the schedule, or after how many milliseconds of a real run. */
export type Timed<Event> = Event & { readonly moment: number };

export type TraceEntry = Timed<TraceEvent>;

/** Of a long trace, events from its beginning and from its end. */
const KEPT = 60;

/** The events of a run, in order. */
export class Trace {
  readonly #entries: { readonly moment: number; readonly event: TraceEvent | (() => TraceEvent) }[] = [];
  /** Told of each event as it happens. */
  onEvent: ((entry: TraceEntry) => void) | undefined;

  /** `event` may be made only when it is read: what it depends on must not change any more. */
  add(moment: number, event: TraceEvent | (() => TraceEvent)): void {
    this.#entries.push({ moment, event });
    this.onEvent?.({ moment, ...made(event) });
  }

  /** All of it, as {@link condensed} leaves it. */
  get entries(): readonly TraceEntry[] {
    return condensed(this.#entries.map(({ moment, event }) => ({ moment, ...made(event) })));
  }
}

const made = (event: TraceEvent | (() => TraceEvent)): TraceEvent =>
  typeof event === 'function' ? event() : event;

/** A trace without what is repeated at once, and of many events the first and the last. */
export function condensed<Event extends { readonly kind: string; readonly actor: Actor }>(
  entries: readonly Timed<Event | TraceEvent>[],
): readonly Timed<Event | TraceEvent>[] {
  const all = entries.filter((entry, at) => at === 0 || !isRepeated(entries[at - 1]!, entry));
  const count = all.length - 2 * KEPT;
  if (count <= 0) return all;
  const { moment } = all[KEPT]!;
  return [
    ...all.slice(0, KEPT),
    { moment, actor: { kind: 'suite' }, kind: 'omitted', count },
    ...all.slice(-KEPT),
  ];
}

const isRepeated = (
  { moment: _before, ...last }: Timed<object>,
  { moment: _now, ...next }: Timed<object>,
): boolean => JSON.stringify(last) === JSON.stringify(next);
