import { type PageIndex } from '../api/address.js';

/** Words at the front. */
const WORD = {
  /** Odd while slots are being changed: nobody enters. */
  pause: 0,
  /** Counts up whenever the slot thread should look. */
  work: 1,
  /** 1: the pager has closed. */
  closed: 2,
  /** 1 while the resolver sleeps in poll(2): only then is its doorbell rung. */
  asleep: 3,
  /** Counts faults posted. */
  posted: 4,
  /** Counts kicks of the resolver by the control thread. */
  kicks: 5,
  swaps: 6,
  slotsChanged: 7,
  header: 8,
} as const;

/** Words of one vCPU. */
const SEAT = {
  /** 1 while it may be inside KVM_RUN. */
  inside: 0,
  thread: 1,
  /** The vCPU's descriptor plus one; 0: nobody sits here. */
  descriptor: 2,
  mail: 3,
  page: 4,
  /** The page plus one that the thread waits for in a page fault, as far as the resolver has heard. */
  blocked: 5,
  size: 8,
} as const;

/** What became of a fault that a vCPU waits on. */
export const MAIL = { none: 0, posted: 1, taken: 2, answered: 3 } as const;
/** With which word it was answered. */
export const ANSWER = { again: 0, poisoned: 1, failed: 2, closed: 3 } as const;

/** One bit a page each. `filled`: the contents are there. `live`: a slot shows them to the guest. */
const BITMAPS = ['filled', 'live', 'poisoned'] as const;
export type PageBitmap = (typeof BITMAPS)[number];

/** What crosses to other isolates; the buffer is shared. */
export interface ExitBoardToken {
  readonly pages: number;
  readonly vcpus: number;
  readonly words: SharedArrayBuffer;
}

/**
 * Where the vCPUs' gates, the resolver and the slot thread meet: words in shared memory, nothing else.
 *
 * A vCPU has at most one fault under way, so each has a letter box instead of all sharing a queue: it
 * cannot overflow, and a fault is told apart from its page. Whoever waits, waits on its own word and is
 * woken by name.
 *
 * Who writes what: a gate its own seat; the resolver `filled` and `poisoned`; the slot thread `live` and `pause`.
 * Every word is reached by Atomics only, which are sequentially consistent: "set mine, then look at yours" on
 * both sides never misses both.
 */
export class ExitBoard {
  readonly pages: number;
  readonly vcpus: number;
  readonly #words: Int32Array;
  readonly #bitmapAt: Readonly<Record<PageBitmap, number>>;

  constructor({ pages, vcpus, words }: ExitBoardToken) {
    this.pages = pages;
    this.vcpus = vcpus;
    this.#words = new Int32Array(words);
    const start = WORD.header + vcpus * SEAT.size;
    const size = Math.ceil(pages / 32);
    this.#bitmapAt = { filled: start, live: start + size, poisoned: start + 2 * size };
  }

  static create(pages: number, vcpus: number): ExitBoard {
    const words = WORD.header + vcpus * SEAT.size + BITMAPS.length * Math.ceil(pages / 32);
    return new ExitBoard({ pages, vcpus, words: new SharedArrayBuffer(words * 4) });
  }

  get token(): ExitBoardToken {
    return { pages: this.pages, vcpus: this.vcpus, words: this.#words.buffer as SharedArrayBuffer };
  }

  // ── pages ──

  has(bitmap: PageBitmap, page: PageIndex): boolean {
    return ((Atomics.load(this.#words, this.#bitmapAt[bitmap] + (page >>> 5)) >>> (page & 31)) & 1) === 1;
  }

  mark(bitmap: PageBitmap, first: PageIndex, count: number, on: boolean): void {
    for (let page = first; page < first + count; page++) {
      const word = this.#bitmapAt[bitmap] + (page >>> 5);
      if (on) Atomics.or(this.#words, word, 1 << (page & 31));
      else Atomics.and(this.#words, word, ~(1 << (page & 31)));
    }
  }

  // ── the pause ──

  get pause(): number {
    return Atomics.load(this.#words, WORD.pause);
  }

  /** Slot thread: from now on nobody enters. */
  beginPause(): void {
    Atomics.add(this.#words, WORD.pause, 1);
  }

  endPause(): void {
    Atomics.add(this.#words, WORD.pause, 1);
    Atomics.notify(this.#words, WORD.pause);
  }

  /** Waits while slots are being changed. */
  waitWhilePaused(): void {
    for (let pause = this.pause; pause & 1; pause = this.pause) Atomics.wait(this.#words, WORD.pause, pause);
  }

  // ── seats ──

  #seat(vcpu: number, word: number): number {
    return WORD.header + vcpu * SEAT.size + word;
  }

  /** False: somebody sits there already. */
  sit(vcpu: number, descriptor: number, thread: number): boolean {
    if (Atomics.compareExchange(this.#words, this.#seat(vcpu, SEAT.descriptor), 0, descriptor + 1) !== 0)
      return false;
    Atomics.store(this.#words, this.#seat(vcpu, SEAT.thread), thread);
    return true;
  }

  leaveSeat(vcpu: number): void {
    this.setInside(vcpu, false);
    Atomics.store(this.#words, this.#seat(vcpu, SEAT.blocked), 0);
    Atomics.store(this.#words, this.#seat(vcpu, SEAT.descriptor), 0);
  }

  /** The descriptor of the vCPU that sits there, or -1. */
  descriptorOf(vcpu: number): number {
    return Atomics.load(this.#words, this.#seat(vcpu, SEAT.descriptor)) - 1;
  }

  threadOf(vcpu: number): number {
    return Atomics.load(this.#words, this.#seat(vcpu, SEAT.thread));
  }

  isInside(vcpu: number): boolean {
    return Atomics.load(this.#words, this.#seat(vcpu, SEAT.inside)) === 1;
  }

  setInside(vcpu: number, inside: boolean): void {
    const word = this.#seat(vcpu, SEAT.inside);
    if (inside) Atomics.store(this.#words, this.#seat(vcpu, SEAT.blocked), 0);
    Atomics.store(this.#words, word, inside ? 1 : 0);
    if (!inside && this.pause & 1) Atomics.notify(this.#words, word);
  }

  /** Slot thread: waits until a vCPU is out, at most `timeoutMs`; whether it is. */
  waitOutside(vcpu: number, timeoutMs: number): boolean {
    Atomics.wait(this.#words, this.#seat(vcpu, SEAT.inside), 1, timeoutMs);
    return !this.isInside(vcpu);
  }

  /** Resolver: the thread of a vCPU waits for a page inside the kernel: a signal would only make it fault again and again. */
  noteBlocked(thread: number, page: PageIndex): void {
    for (let vcpu = 0; vcpu < this.vcpus; vcpu++)
      if (this.threadOf(vcpu) === thread)
        Atomics.store(this.#words, this.#seat(vcpu, SEAT.blocked), page + 1);
  }

  /** Resolver: these pages' waiters were woken. */
  clearBlocked(first: PageIndex, count: number): void {
    for (let vcpu = 0; vcpu < this.vcpus; vcpu++) {
      const page = (Atomics.load(this.#words, this.#seat(vcpu, SEAT.blocked)) >>> 0) - 1;
      if (page >= first && page < first + count)
        Atomics.store(this.#words, this.#seat(vcpu, SEAT.blocked), 0);
    }
  }

  isBlocked(vcpu: number): boolean {
    return Atomics.load(this.#words, this.#seat(vcpu, SEAT.blocked)) !== 0;
  }

  // ── faults ──
  //
  // A letter box is one word: what state the letter is in, how it was answered, and which letter it is. The
  // number makes an answer meant for an old letter miss a new one.

  /** Gate: a letter about a page. `taken`: nobody need fetch it, only the slot thread is waited for. */
  post(vcpu: number, page: PageIndex, mail: 1 | 2): void {
    const word = this.#seat(vcpu, SEAT.mail);
    Atomics.store(this.#words, this.#seat(vcpu, SEAT.page), page);
    Atomics.store(this.#words, word, ((Atomics.load(this.#words, word) & ~15) + 16) | mail);
    if (mail === MAIL.posted) Atomics.add(this.#words, WORD.posted, 1);
  }

  /** Gate: waits for the answer to its letter and takes it. */
  awaitAnswer(vcpu: number): number {
    const word = this.#seat(vcpu, SEAT.mail);
    for (;;) {
      const letter = Atomics.load(this.#words, word);
      if ((letter & 3) === MAIL.answered) {
        Atomics.store(this.#words, word, letter & ~15);
        return (letter >>> 2) & 3;
      }
      Atomics.wait(this.#words, word, letter);
    }
  }

  /** How many faults were ever posted: the resolver looks into the boxes when it has changed. */
  get posted(): number {
    return Atomics.load(this.#words, WORD.posted);
  }

  /** Resolver: the page a vCPU has posted a fault for, now taken; or -1. */
  take(vcpu: number): PageIndex {
    const word = this.#seat(vcpu, SEAT.mail);
    const letter = Atomics.load(this.#words, word);
    if ((letter & 3) !== MAIL.posted) return -1;
    const page = Atomics.load(this.#words, this.#seat(vcpu, SEAT.page)) >>> 0;
    const taken = (letter & ~3) | MAIL.taken;
    return Atomics.compareExchange(this.#words, word, letter, taken) === letter ? page : -1;
  }

  /** The page a vCPU waits for, or -1. */
  waitsFor(vcpu: number): PageIndex {
    const state = Atomics.load(this.#words, this.#seat(vcpu, SEAT.mail)) & 3;
    if (state !== MAIL.posted && state !== MAIL.taken) return -1;
    return Atomics.load(this.#words, this.#seat(vcpu, SEAT.page)) >>> 0;
  }

  /** Answers every vCPU that waits for one of these pages; how many. */
  answer(first: PageIndex, count: number, verdict: number = ANSWER.again): number {
    let answered = 0;
    for (let vcpu = 0; vcpu < this.vcpus; vcpu++) {
      if (this.#answerOne(vcpu, first, count, verdict)) answered++;
    }
    return answered;
  }

  #answerOne(vcpu: number, first: PageIndex, count: number, verdict: number): boolean {
    const word = this.#seat(vcpu, SEAT.mail);
    for (;;) {
      const letter = Atomics.load(this.#words, word);
      const state = letter & 3;
      if (state !== MAIL.posted && state !== MAIL.taken) return false;
      const page = Atomics.load(this.#words, this.#seat(vcpu, SEAT.page)) >>> 0;
      const answered = (letter & ~15) | MAIL.answered | (verdict << 2);
      if (page < first || page >= first + count) {
        // The page may be a newer letter's than the one looked at.
        if (Atomics.load(this.#words, word) === letter) return false;
      } else if (Atomics.compareExchange(this.#words, word, letter, answered) === letter) {
        Atomics.notify(this.#words, word);
        return true;
      }
    }
  }

  // ── the slot thread ──

  get work(): number {
    return Atomics.load(this.#words, WORD.work);
  }

  callSlotThread(): void {
    Atomics.add(this.#words, WORD.work, 1);
    Atomics.notify(this.#words, WORD.work);
  }

  /** Slot thread: sleeps until {@link work} is no longer `seen`. */
  waitForWork(seen: number): void {
    Atomics.wait(this.#words, WORD.work, seen);
  }

  countSwap(slots: number): void {
    Atomics.add(this.#words, WORD.swaps, 1);
    Atomics.add(this.#words, WORD.slotsChanged, slots);
  }

  /** Times that slots were changed, and slots changed in all. */
  get swaps(): { readonly swaps: number; readonly slots: number } {
    return {
      swaps: Atomics.load(this.#words, WORD.swaps),
      slots: Atomics.load(this.#words, WORD.slotsChanged),
    };
  }

  // ── the resolver's sleep ──

  get asleep(): boolean {
    return Atomics.load(this.#words, WORD.asleep) === 1;
  }

  set asleep(on: boolean) {
    Atomics.store(this.#words, WORD.asleep, on ? 1 : 0);
  }

  get kicks(): number {
    return Atomics.load(this.#words, WORD.kicks);
  }

  kick(): void {
    Atomics.add(this.#words, WORD.kicks, 1);
  }

  // ── the end ──

  get closed(): boolean {
    return Atomics.load(this.#words, WORD.closed) === 1;
  }

  /** Nobody is waited for any more. */
  close(): void {
    Atomics.store(this.#words, WORD.closed, 1);
    this.answer(0, 2 ** 32, ANSWER.closed);
  }
}
