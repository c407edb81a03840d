import { type PageIndex, type PageSource, type ReadAnswer } from '../api/index.js';
import { type Contents } from './contents.js';

/** What a source does when a page is asked for. `never`: it does not answer. `short` and `long`: a wrong length. */
export type SourceFault = 'throws' | 'short' | 'long' | 'never';

interface Pending {
  readonly offset: number;
  readonly into: Uint8Array;
  readonly settle: (answer: ReadAnswer | Error) => void;
}

/** A source whose answers, failures and delays a property decides. Asynchronous answers wait until {@link answer}. */
export class ScriptedSource implements PageSource {
  readonly synchronous: boolean;
  readonly length: number;
  /** Reads under way, and the most there were at once. */
  inFlight = 0;
  mostInFlight = 0;
  /** Called when a read arrives that waits for {@link answer}. */
  onRead: () => void = () => {};
  /** Called inside a synchronous read: others go on meanwhile. */
  meanwhile: () => void = () => {};
  readonly #contents: Contents;
  readonly #faults = new Map<PageIndex, { readonly fault: SourceFault; times: number }>();
  readonly #held = new Set<PageIndex>();
  readonly #zeros = new Set<PageIndex>();
  #pending: Pending[] = [];

  constructor(contents: Contents, pages: number, synchronous: boolean) {
    this.#contents = contents;
    this.synchronous = synchronous;
    this.length = pages * contents.page_bytes;
  }

  /** Reads that touch this page fail, `times` times. */
  fail(page: PageIndex, fault: SourceFault, times = Infinity): void {
    this.#faults.set(page, { fault, times });
  }

  /** Of this page the source says that it is zeros, and writes something else. */
  tellZeros(page: PageIndex): void {
    this.#zeros.add(page);
  }

  /** Reads that touch this page are answered no more until {@link resume}. Asynchronous sources only. */
  hold(page: PageIndex): void {
    this.#held.add(page);
  }

  resume(): void {
    this.#held.clear();
  }

  read(offset: number, into: Uint8Array): ReadAnswer | Promise<ReadAnswer> {
    this.mostInFlight = Math.max(this.mostInFlight, ++this.inFlight);
    if (this.synchronous) {
      this.meanwhile();
      this.inFlight--;
      const answer = this.#fill(offset, into);
      if (answer instanceof Error) throw answer;
      return answer;
    }
    return this.#later(offset, into);
  }

  /** How many reads could be answered now. */
  get answerable(): number {
    return this.#pending.filter((pending) => !this.#isHeld(pending)).length;
  }

  /** Answers one of the reads that can be, by its number among them. */
  answer(which: number): void {
    const pending = this.#pending.filter((each) => !this.#isHeld(each))[which];
    if (!pending) return;
    this.#pending = this.#pending.filter((each) => each !== pending);
    if (this.#faultOf(pending)?.fault === 'never') return; // it is forgotten: the reader times out
    this.inFlight--;
    pending.settle(this.#fill(pending.offset, pending.into));
  }

  /** Settled by the thread that steps, at once: a promise would settle only after the schedule's step. */
  #later(offset: number, into: Uint8Array): Promise<ReadAnswer> {
    let done: ((answer: ReadAnswer) => void) | undefined;
    let failed: ((error: Error) => void) | undefined;
    const settle = (answer: ReadAnswer | Error): void => {
      if (answer instanceof Error) failed?.(answer);
      else done?.(answer);
    };
    this.#pending.push({ offset, into, settle });
    this.onRead();
    const answer: PromiseLike<ReadAnswer> = {
      // The resolver attaches its callbacks right after the read; nothing can be answered before.
      then: (onDone, onFailed) => {
        done = onDone as (answer: ReadAnswer) => void;
        failed = onFailed as (error: Error) => void;
        return answer as PromiseLike<never>;
      },
    };
    return answer as Promise<ReadAnswer>;
  }

  #fill(offset: number, into: Uint8Array): ReadAnswer | Error {
    const found = this.#faultOf({ offset, into });
    if (found && found.times > 0) {
      found.times--;
      if (found.fault === 'throws' || found.fault === 'never')
        return new Error('the source was told to fail');
      return found.fault === 'short' ? into.length - 1 : into.length + 1;
    }
    const { page_bytes } = this.#contents;
    const zeros: { start: number; length: number }[] = [];
    for (let at = 0; at < into.length; at += page_bytes) {
      const page = (offset + at) / page_bytes;
      const isZero = this.#zeros.has(page);
      if (isZero) zeros.push({ start: at, length: page_bytes });
      into.set(isZero ? this.#contents.foreign(page) : this.#contents.page(page), at);
    }
    return zeros.length > 0 ? { length: into.length, zeros } : into.length;
  }

  #faultOf({
    offset,
    into,
  }: Pick<Pending, 'offset' | 'into'>): { readonly fault: SourceFault; times: number } | undefined {
    return this.#pagesOf(offset, into)
      .map((page) => this.#faults.get(page))
      .find((fault) => fault !== undefined && fault.times > 0);
  }

  #isHeld({ offset, into }: Pending): boolean {
    return this.#held.size > 0 && this.#pagesOf(offset, into).some((page) => this.#held.has(page));
  }

  #pagesOf(offset: number, into: Uint8Array): PageIndex[] {
    const { page_bytes } = this.#contents;
    return Array.from({ length: into.length / page_bytes }, (_, i) => offset / page_bytes + i);
  }
}
