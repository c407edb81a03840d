import { type PlainError } from './error.js';
import { type CommandReply, type Notice, isDroppable } from './notice.js';
import { WORD } from './resolver-thread.js';
import { COUNTER, type Counters } from './statistics.js';

/** What a resolver's worker sends to the control thread. */
export type ResolverMessage =
  | { readonly kind: 'ready'; readonly sourceLength: number; readonly synchronous: boolean }
  /** The source is a synchronous one, which must not share this thread: it was closed, and nothing of the port opened. */
  | { readonly kind: 'misplaced' }
  | { readonly kind: 'reply'; readonly id: number; readonly reply: CommandReply }
  | { readonly kind: 'notice'; readonly notice: Notice }
  /** The last message of a resolver that ended as told. */
  | { readonly kind: 'ended' }
  | { readonly kind: 'died'; readonly error: PlainError };

/**
 * Bounds the notices under way to a control thread that may be busy or blocked: beyond the bound
 * those that may be dropped are, and counted; the others always go.
 */
export class NoticeSender {
  #sent = 0;

  constructor(
    private readonly send: (message: ResolverMessage) => void,
    private readonly words: Int32Array,
    private readonly bound: number,
    private readonly counters: Counters,
  ) {}

  notify(notice: Notice): void {
    // Both counts wrap alike, so their difference stays right.
    const underWay = (this.#sent - Atomics.load(this.words, WORD.handled)) | 0;
    if (isDroppable(notice) && underWay >= this.bound) return this.counters.add(COUNTER.droppedNotices);
    this.#sent = (this.#sent + 1) | 0;
    this.send({ kind: 'notice', notice });
  }
}
