import { type PageIndex, type PageRange } from '../api/address.js';

/** Words at the front. */
const WORD = {
  /** Odd while slots are being changed: nobody enters. */
  pause: 0,
  /** Counts up whenever the slot thread should look. */
  work: 1,
  /** See {@link END}. */
  closed: 2,
  /** 1 while the resolver sleeps in poll(2): only then is its doorbell rung. */
  asleep: 3,
  /** Counts faults posted. */
  posted: 4,
  /** Counts kicks of the resolver by the control thread. */
  kicks: 5,
  swaps: 6,
  slotsChanged: 7,
  /** Two numbers of 64 bits: see {@link TIME}. */
  times: 8,
  /** Counts when a page was asked for that could not be mapped, and when others had been hidden for it. */
  roomAsked: 12,
  roomAnswered: 13,
  hiddenRuns: 14,
  /** 1 where there was nothing left to hide. */
  roomless: 15,
  /** 1 where a page may be complete and not mapped, though nobody keeps it back. */
  hidden: 16,
  /** 1 where a page that is asked for waits for room. */
  roomNeeded: 17,
  header: 18,
} as const;

/** Places behind {@link WORD.times}. */
const TIME = { standing: 0, longest: 1 } as const;

/** Words of one vCPU. */
const SEAT = {
  /** 1 while it may be inside KVM_RUN. */
  inside: 0,
  thread: 1,
  /** The vCPU's descriptor plus one; 0: nobody sits here; {@link NO_VCPU}: a thread that runs none. */
  descriptor: 2,
  mail: 3,
  page: 4,
  /** The page plus one that the thread waits for in a page fault, as far as the resolver has heard. */
  blocked: 5,
  /** 1 while the slot thread, or whoever leaves, needs the descriptor to stay what it is. */
  held: 6,
  /** Counts who has sat here. */
  sitting: 7,
  size: 8,
} as const;

const NO_VCPU = -1;

/** Who sits in a place: the vCPU's descriptor, if its thread runs one, the thread, and the how manieth it is. */
export interface Seat {
  readonly descriptor: number | undefined;
  readonly thread: number;
  readonly sitting: number;
}

/** What changes of slots cost. Each number is whole; they need not be of one instant. */
export interface Swaps {
  /** Times that slots were changed. */
  readonly swaps: number;
  /** Slots changed in all. */
  readonly slots: number;
  /** How long vCPUs were made to stand, from the first that was called out of KVM_RUN to when all may go in again. */
  readonly standing_ns: number;
  /** The longest time of these. */
  readonly longestStanding_ns: number;
  /**
   * Runs of pages that were hidden from the VMM's threads and the kernel until they are accessed again, because the
   * process has vm.max_map_count mappings. guest_memfd memory only.
   */
  readonly hiddenRuns: number;
}

/** What became of a fault that a vCPU waits on. */
export const MAIL = { none: 0, posted: 1, taken: 2, answered: 3 } as const;
/** With which word it was answered. */
export const ANSWER = { again: 0, poisoned: 1, failed: 2, closed: 3, stopped: 4 } as const;
/** Whether pages still come: they do; the pager has closed; slots cannot be changed any more. */
const END = { open: 0, closed: 1, stopped: 2 } as const;
/** Of a letter box: the state of the letter, then the answer, then the letter's number. */
const STATE_BITS = 3;
const ANSWER_SHIFT = 2;
const LETTER_BITS = 31;
const NEXT_LETTER = 32;

/**
 * One bit a page each. `filled`: the contents are there. `live`: a slot shows them to the guest. `frozen`: none may.
 */
const BITMAPS = ['filled', 'live', 'poisoned', 'frozen'] as const;
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
 * Every word but the times is reached by Atomics only, which are sequentially consistent: "set mine, then look at
 * yours" on both sides never misses both.
 */
export class ExitBoard {
  readonly pages: number;
  readonly vcpus: number;
  readonly #words: Int32Array;
  readonly #times: Float64Array;
  readonly #bitmapAt: Readonly<Record<PageBitmap, number>>;

  constructor({ pages, vcpus, words }: ExitBoardToken) {
    this.pages = pages;
    this.vcpus = vcpus;
    this.#words = new Int32Array(words);
    this.#times = new Float64Array(words, WORD.times * 4, 2);
    const start = WORD.header + vcpus * SEAT.size;
    const size = Math.ceil(pages / 32);
    this.#bitmapAt = {
      filled: start,
      live: start + size,
      poisoned: start + 2 * size,
      frozen: start + 3 * size,
    };
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

  /** Whether any of these pages is marked. */
  any(bitmap: PageBitmap, { first, count }: PageRange): boolean {
    for (let page = first; page < first + count; page++) if (this.has(bitmap, page)) return true;
    return false;
  }

  /** Whether these pages can be shown: every one is filled, and none is frozen. */
  ready({ first, count }: PageRange): boolean {
    for (let page = first; page < first + count; page++)
      if (!this.has('filled', page) || this.has('frozen', page)) return false;
    return true;
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

  /** False: somebody sits there already. `descriptor`: undefined for a thread that runs no vCPU. */
  sit(vcpu: number, descriptor: number | undefined, thread: number): boolean {
    const word = descriptor === undefined ? NO_VCPU : descriptor + 1;
    if (Atomics.compareExchange(this.#words, this.#seat(vcpu, SEAT.descriptor), 0, word) !== 0) return false;
    Atomics.store(this.#words, this.#seat(vcpu, SEAT.thread), thread);
    Atomics.add(this.#words, this.#seat(vcpu, SEAT.sitting), 1); // before anybody is inside
    return true;
  }

  /** Waits, for a moment, while the slot thread uses the descriptor: afterwards its owner may close it. */
  leaveSeat(vcpu: number): void {
    this.#hold(vcpu);
    this.#vacate(vcpu);
    this.#letGo(vcpu);
  }

  /**
   * Slot thread: who sits there, after `body` was called with it; nobody leaves meanwhile, so that the descriptor stays
   * open and no other's. Nothing in `body` may wait.
   */
  withSeat(vcpu: number, body: (seat: Seat) => void): Seat | undefined {
    this.#hold(vcpu);
    try {
      const seat = this.#seatOf(vcpu);
      if (seat) body(seat);
      return seat;
    } finally {
      this.#letGo(vcpu);
    }
  }

  /** Slot thread: the thread of who sat there has ended without leaving. */
  abandonSeat(vcpu: number, { sitting }: Seat): void {
    this.#hold(vcpu);
    if (this.#seatOf(vcpu)?.sitting === sitting) this.#vacate(vcpu);
    this.#letGo(vcpu);
  }

  #seatOf(vcpu: number): Seat | undefined {
    const word = Atomics.load(this.#words, this.#seat(vcpu, SEAT.descriptor));
    if (word === 0) return undefined;
    return {
      descriptor: word === NO_VCPU ? undefined : word - 1,
      thread: this.threadOf(vcpu),
      sitting: Atomics.load(this.#words, this.#seat(vcpu, SEAT.sitting)),
    };
  }

  #vacate(vcpu: number): void {
    this.setInside(vcpu, false);
    Atomics.store(this.#words, this.#seat(vcpu, SEAT.blocked), 0);
    Atomics.store(this.#words, this.#seat(vcpu, SEAT.descriptor), 0);
  }

  #hold(vcpu: number): void {
    const word = this.#seat(vcpu, SEAT.held);
    while (Atomics.compareExchange(this.#words, word, 0, 1) !== 0) Atomics.wait(this.#words, word, 1);
  }

  #letGo(vcpu: number): void {
    const word = this.#seat(vcpu, SEAT.held);
    Atomics.store(this.#words, word, 0);
    Atomics.notify(this.#words, word, 1);
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

  /** Slot thread: waits until a vCPU is out, at most `timeout_ms`; whether it is. */
  waitOutside(vcpu: number, timeout_ms: number): boolean {
    Atomics.wait(this.#words, this.#seat(vcpu, SEAT.inside), 1, timeout_ms);
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
    Atomics.store(this.#words, word, ((Atomics.load(this.#words, word) & ~LETTER_BITS) + NEXT_LETTER) | mail);
    if (mail === MAIL.posted) Atomics.add(this.#words, WORD.posted, 1);
  }

  /** Gate: waits for the answer to its letter and takes it. */
  awaitAnswer(vcpu: number): number {
    const word = this.#seat(vcpu, SEAT.mail);
    for (;;) {
      const letter = Atomics.load(this.#words, word);
      if ((letter & STATE_BITS) === MAIL.answered) {
        Atomics.store(this.#words, word, letter & ~LETTER_BITS);
        return (letter & LETTER_BITS) >>> ANSWER_SHIFT;
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
    if ((letter & STATE_BITS) !== MAIL.posted) return -1;
    const page = Atomics.load(this.#words, this.#seat(vcpu, SEAT.page)) >>> 0;
    const taken = (letter & ~STATE_BITS) | MAIL.taken;
    return Atomics.compareExchange(this.#words, word, letter, taken) === letter ? page : -1;
  }

  /** The page a vCPU waits for, or -1. */
  waitsFor(vcpu: number): PageIndex {
    const state = Atomics.load(this.#words, this.#seat(vcpu, SEAT.mail)) & STATE_BITS;
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
      const state = letter & STATE_BITS;
      if (state !== MAIL.posted && state !== MAIL.taken) return false;
      const page = Atomics.load(this.#words, this.#seat(vcpu, SEAT.page)) >>> 0;
      const answered = (letter & ~LETTER_BITS) | MAIL.answered | (verdict << ANSWER_SHIFT);
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

  // ── mappings ──

  /**
   * Resolver: the slot thread is to hide pages from the VMM, so that there are mappings for others. `needed`: a page that
   * is asked for waits for one.
   */
  askForRoom(needed: boolean): void {
    if (needed) Atomics.store(this.#words, WORD.roomNeeded, 1);
    Atomics.add(this.#words, WORD.roomAsked, 1);
    this.callSlotThread();
  }

  get roomAsks(): number {
    return Atomics.load(this.#words, WORD.roomAsked);
  }

  /** Slot thread: whether a page has waited for room since the last call. */
  takeRoomNeeded(): boolean {
    return Atomics.exchange(this.#words, WORD.roomNeeded, 0) === 1;
  }

  /** Slot thread: so many runs of pages are hidden, for all that asked until then. */
  answerRoom(runs: number, needed: boolean): void {
    if (runs > 0) this.noteHidden();
    Atomics.add(this.#words, WORD.hiddenRuns, runs);
    if (needed || runs > 0) Atomics.store(this.#words, WORD.roomless, runs === 0 ? 1 : 0);
    Atomics.add(this.#words, WORD.roomAnswered, 1);
  }

  /** A page that is complete is not mapped. */
  noteHidden(): void {
    Atomics.store(this.#words, WORD.hidden, 1);
  }

  get anyHidden(): boolean {
    return Atomics.load(this.#words, WORD.hidden) === 1;
  }

  get roomAnswers(): number {
    return Atomics.load(this.#words, WORD.roomAnswered);
  }

  /** The last time that room was asked for there was nothing left to hide. */
  get roomless(): boolean {
    return Atomics.load(this.#words, WORD.roomless) === 1;
  }

  /** The slot thread, which alone writes these: the vCPUs stood for so long. */
  countStanding(ns: number): void {
    this.#times[TIME.standing]! += ns;
    this.#times[TIME.longest] = Math.max(this.#times[TIME.longest]!, ns);
  }

  get swaps(): Swaps {
    return {
      swaps: Atomics.load(this.#words, WORD.swaps),
      slots: Atomics.load(this.#words, WORD.slotsChanged),
      standing_ns: this.#times[TIME.standing]!,
      longestStanding_ns: this.#times[TIME.longest]!,
      hiddenRuns: Atomics.load(this.#words, WORD.hiddenRuns),
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

  /** Pages come no more. */
  get closed(): boolean {
    return Atomics.load(this.#words, WORD.closed) !== END.open;
  }

  /** What a vCPU is told that waits now. */
  get endAnswer(): number {
    return Atomics.load(this.#words, WORD.closed) === END.stopped ? ANSWER.stopped : ANSWER.closed;
  }

  /** Nobody is waited for any more. */
  close(): void {
    this.#end(END.closed);
  }

  /** Slots cannot be changed any more: whoever waits for one waits in vain. */
  stop(): void {
    this.#end(END.stopped);
  }

  /** The slot thread is gone: nobody else ends its pause. */
  endPauseOfTheDead(): void {
    if (this.pause & 1) this.endPause();
  }

  #end(end: number): void {
    Atomics.compareExchange(this.#words, WORD.closed, END.open, end);
    this.answer(0, 2 ** 32, this.endAnswer);
  }
}
