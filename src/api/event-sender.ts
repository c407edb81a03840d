import { type PlainError } from './error.js';
import { type CommandReply, type ResolverEvent, isDroppable } from './resolver-protocol.js';
import { WORD } from './resolver-thread.js';
import { COUNTER, type Counters } from './statistics.js';

/** What a resolver's worker sends to the control thread. */
export type ResolverMessage =
  | { readonly kind: 'ready'; readonly sourceLength: number; readonly synchronous: boolean }
  /** The source is synchronous and must not share this thread: it was closed, and no port was opened. */
  | { readonly kind: 'misplaced' }
  | { readonly kind: 'reply'; readonly id: number; readonly reply: CommandReply }
  | { readonly kind: 'event'; readonly event: ResolverEvent }
  /** The last message of a resolver that carried out its `end` command. */
  | { readonly kind: 'ended' }
  | { readonly kind: 'died'; readonly error: PlainError };

/**
 * Bounds the events in flight to a control thread that may be busy or blocked. Beyond the bound, droppable
 * events are dropped and counted; the others are always sent.
 */
export class EventSender {
  #sent = 0;

  constructor(
    private readonly send: (message: ResolverMessage) => void,
    private readonly words: Int32Array,
    private readonly bound: number,
    private readonly counters: Counters,
  ) {}

  notify(event: ResolverEvent): void {
    // Both counts wrap alike, so their difference stays right.
    const inFlight = (this.#sent - Atomics.load(this.words, WORD.handled)) | 0;
    if (isDroppable(event) && inFlight >= this.bound) return this.counters.add(COUNTER.droppedEvents);
    this.#sent = (this.#sent + 1) | 0;
    this.send({ kind: 'event', event });
  }
}
