import { type PageIndex, type PageRange } from '../api/address.js';

/** Words at the front of the shared memory. */
const WORD = {
  /** Odd while memslots are being changed: no vCPU enters KVM_RUN. */
  pause: 0,
  /** Incremented whenever the slot thread has something to look at. */
  work: 1,
  /** See {@link CLOSED}. */
  closed: 2,
  /** 1 while the resolver sleeps in poll(2): its doorbell is rung only then. */
  asleep: 3,
  /** Number of faults raised for the resolver. */
  raised: 4,
  /** Number of kicks of the resolver by the control thread. */
  kicks: 5,
  updates: 6,
  slotsChanged: 7,
  /** Two 64-bit numbers: see {@link TIME}. */
  times: 8,
  /** Incremented when a requested page could not be mapped, and when other pages were unmapped for it. */
  roomAsked: 12,
  roomAnswered: 13,
  unmappedRuns: 14,
  /** 1 when there was nothing left to unmap. */
  roomless: 15,
  /** 1 when a page may be complete but not mapped for the VMM, although it is not frozen. */
  unmapped: 16,
  /** 1 while a requested page waits for room. */
  roomNeeded: 17,
  header: 18,
} as const;

/** Places behind {@link WORD.times}. */
const TIME = { paused: 0, longest: 1 } as const;

/** Words of one vCPU. */
const VCPU = {
  /** 1 while the vCPU may be inside KVM_RUN. */
  inside: 0,
  thread: 1,
  /** The vCPU's descriptor plus one; 0: not registered; {@link NO_VCPU}: a thread that runs no vCPU. */
  descriptor: 2,
  /** The fault slot: see {@link FAULT}. */
  fault: 3,
  page: 4,
  /** One plus the page that the thread waits for in a page fault, as far as the resolver has heard. */
  blocked: 5,
  /**
   * 1 while the registration is locked: by the slot thread, which uses the descriptor, or by unregistering.
   */
  locked: 6,
  /** Incremented by each registration. */
  generation: 7,
  size: 8,
} as const;

const NO_VCPU = -1;

/**
 * A registered vCPU: its descriptor, if the thread runs a vCPU, its thread, and the generation, which tells
 * it from an earlier or later registration under the same index.
 */
export interface VcpuRegistration {
  readonly descriptor: number | undefined;
  readonly thread: number;
  readonly generation: number;
}

/** The cost of memslot updates so far. The numbers are read one after the other, not at one instant. */
export interface MemslotUpdates {
  /** Number of updates. */
  readonly updates: number;
  /** Number of memslots created and deleted. */
  readonly slots: number;
  /** Total time vCPUs were paused: from the first kick out of KVM_RUN until all may enter again. */
  readonly paused_ns: number;
  /** The longest pause. */
  readonly longestPause_ns: number;
  /**
   * Runs of pages that were unmapped from the VMM's address space until their next access, because the
   * process has vm.max_map_count mappings. guest_memfd memory only.
   */
  readonly unmappedRuns: number;
}

/**
 * State of a fault slot. A vCPU raises a fault, `pending` (the resolver has to fetch the page) or `claimed`
 * (only the slot thread has to map it). The resolver claims a pending fault. Any thread completes a pending
 * or claimed one. The vCPU takes the result and the slot is `idle`.
 */
export const FAULT = { idle: 0, pending: 1, claimed: 2, completed: 3 } as const;
/** How a fault was completed. */
export const RESULT = { retry: 0, poisoned: 1, failed: 2, closed: 3, stopped: 4 } as const;
/**
 * Whether pages are still delivered: yes; no, the pager has closed; no, memslots can no longer be changed.
 */
const CLOSED = { open: 0, closed: 1, stopped: 2 } as const;
/** Bits of a fault slot: the state, then the result, then the number of the fault. */
const STATE_BITS = 3;
const RESULT_SHIFT = 2;
const STATE_AND_RESULT_BITS = 31;
const NEXT_FAULT = 32;

/**
 * One bit for each page. `populated`: the contents are in memory. `mapped`: a memslot maps the page for the
 * guest. `frozen`: no memslot may map it.
 */
const BITMAPS = ['populated', 'mapped', 'poisoned', 'frozen'] as const;
export type PageBitmap = (typeof BITMAPS)[number];

/** What crosses to other isolates; the buffer is shared. */
export interface SharedVcpuStateToken {
  readonly pages: number;
  readonly vcpus: number;
  readonly words: SharedArrayBuffer;
}

/**
 * The state that the vCPUs' exit handlers, the resolver and the slot thread share: words in shared memory,
 * nothing else.
 *
 * A vCPU has at most one fault in flight, so each vCPU has one fault slot instead of a place in a common
 * queue: the slots cannot overflow, and a fault is identified by its number, not by its page. Each waiter
 * waits on a word of its own and is woken through that word.
 *
 * Writers: an exit handler writes its own vCPU's words; the resolver `populated` and `poisoned`; the slot
 * thread `mapped` and `pause`. Every word but the times is accessed by Atomics only, which are sequentially
 * consistent: when two threads each "set my word, then look at yours", at least one of them sees the other's.
 */
export class SharedVcpuState {
  readonly pages: number;
  readonly vcpus: number;
  readonly #words: Int32Array;
  readonly #times: Float64Array;
  readonly #bitmapAt: Readonly<Record<PageBitmap, number>>;

  constructor({ pages, vcpus, words }: SharedVcpuStateToken) {
    this.pages = pages;
    this.vcpus = vcpus;
    this.#words = new Int32Array(words);
    this.#times = new Float64Array(words, WORD.times * 4, 2);
    const start = WORD.header + vcpus * VCPU.size;
    const size = Math.ceil(pages / 32);
    this.#bitmapAt = {
      populated: start,
      mapped: start + size,
      poisoned: start + 2 * size,
      frozen: start + 3 * size,
    };
  }

  static create(pages: number, vcpus: number): SharedVcpuState {
    const words = WORD.header + vcpus * VCPU.size + BITMAPS.length * Math.ceil(pages / 32);
    return new SharedVcpuState({ pages, vcpus, words: new SharedArrayBuffer(words * 4) });
  }

  get token(): SharedVcpuStateToken {
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

  /** Whether these pages can be mapped for the guest: all are populated and none is frozen. */
  mappable({ first, count }: PageRange): boolean {
    for (let page = first; page < first + count; page++)
      if (!this.has('populated', page) || this.has('frozen', page)) return false;
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

  /** Slot thread: from now on no vCPU enters KVM_RUN. */
  beginPause(): void {
    Atomics.add(this.#words, WORD.pause, 1);
  }

  endPause(): void {
    Atomics.add(this.#words, WORD.pause, 1);
    Atomics.notify(this.#words, WORD.pause);
  }

  /** Waits while memslots are being changed. */
  waitWhilePaused(): void {
    for (let pause = this.pause; pause & 1; pause = this.pause) Atomics.wait(this.#words, WORD.pause, pause);
  }

  // ── vCPU registrations ──

  #wordOf(vcpu: number, word: number): number {
    return WORD.header + vcpu * VCPU.size + word;
  }

  /** False: this vCPU is registered already. `descriptor`: undefined for a thread that runs no vCPU. */
  register(vcpu: number, descriptor: number | undefined, thread: number): boolean {
    const word = descriptor === undefined ? NO_VCPU : descriptor + 1;
    if (Atomics.compareExchange(this.#words, this.#wordOf(vcpu, VCPU.descriptor), 0, word) !== 0)
      return false;
    Atomics.store(this.#words, this.#wordOf(vcpu, VCPU.thread), thread);
    Atomics.add(this.#words, this.#wordOf(vcpu, VCPU.generation), 1); // before the vCPU is inside
    return true;
  }

  /** Waits briefly while the slot thread uses the descriptor: afterwards its owner may close it. */
  unregister(vcpu: number): void {
    this.#lock(vcpu);
    this.#clearRegistration(vcpu);
    this.#unlock(vcpu);
  }

  /**
   * Slot thread: the registration, after `body` was called with it. The registration is locked meanwhile, so
   * that the descriptor stays open and is not reused. Precondition: nothing in `body` waits.
   */
  withRegistration(
    vcpu: number,
    body: (registration: VcpuRegistration) => void,
  ): VcpuRegistration | undefined {
    this.#lock(vcpu);
    try {
      const registration = this.#registrationOf(vcpu);
      if (registration) body(registration);
      return registration;
    } finally {
      this.#unlock(vcpu);
    }
  }

  /**
   * Slot thread: the registered thread has ended without unregistering. A later registration is left alone.
   */
  abandon(vcpu: number, { generation }: VcpuRegistration): void {
    this.#lock(vcpu);
    if (this.#registrationOf(vcpu)?.generation === generation) this.#clearRegistration(vcpu);
    this.#unlock(vcpu);
  }

  #registrationOf(vcpu: number): VcpuRegistration | undefined {
    const word = Atomics.load(this.#words, this.#wordOf(vcpu, VCPU.descriptor));
    if (word === 0) return undefined;
    return {
      descriptor: word === NO_VCPU ? undefined : word - 1,
      thread: this.threadOf(vcpu),
      generation: Atomics.load(this.#words, this.#wordOf(vcpu, VCPU.generation)),
    };
  }

  #clearRegistration(vcpu: number): void {
    this.setInside(vcpu, false);
    Atomics.store(this.#words, this.#wordOf(vcpu, VCPU.blocked), 0);
    Atomics.store(this.#words, this.#wordOf(vcpu, VCPU.descriptor), 0);
  }

  #lock(vcpu: number): void {
    const word = this.#wordOf(vcpu, VCPU.locked);
    while (Atomics.compareExchange(this.#words, word, 0, 1) !== 0) Atomics.wait(this.#words, word, 1);
  }

  #unlock(vcpu: number): void {
    const word = this.#wordOf(vcpu, VCPU.locked);
    Atomics.store(this.#words, word, 0);
    Atomics.notify(this.#words, word, 1);
  }

  threadOf(vcpu: number): number {
    return Atomics.load(this.#words, this.#wordOf(vcpu, VCPU.thread));
  }

  isInside(vcpu: number): boolean {
    return Atomics.load(this.#words, this.#wordOf(vcpu, VCPU.inside)) === 1;
  }

  setInside(vcpu: number, inside: boolean): void {
    const word = this.#wordOf(vcpu, VCPU.inside);
    if (inside) Atomics.store(this.#words, this.#wordOf(vcpu, VCPU.blocked), 0);
    Atomics.store(this.#words, word, inside ? 1 : 0);
    if (!inside && this.pause & 1) Atomics.notify(this.#words, word);
  }

  /** Slot thread: waits until a vCPU is outside, at most `timeout_ms`; returns whether it is. */
  waitOutside(vcpu: number, timeout_ms: number): boolean {
    Atomics.wait(this.#words, this.#wordOf(vcpu, VCPU.inside), 1, timeout_ms);
    return !this.isInside(vcpu);
  }

  /**
   * Resolver: the thread of a vCPU waits for a page inside the kernel. A signal would only make it fault
   * again and again.
   */
  noteBlocked(thread: number, page: PageIndex): void {
    for (let vcpu = 0; vcpu < this.vcpus; vcpu++)
      if (this.threadOf(vcpu) === thread)
        Atomics.store(this.#words, this.#wordOf(vcpu, VCPU.blocked), page + 1);
  }

  /** Resolver: the waiters of these pages were woken. */
  clearBlocked(first: PageIndex, count: number): void {
    for (let vcpu = 0; vcpu < this.vcpus; vcpu++) {
      const page = (Atomics.load(this.#words, this.#wordOf(vcpu, VCPU.blocked)) >>> 0) - 1;
      if (page >= first && page < first + count)
        Atomics.store(this.#words, this.#wordOf(vcpu, VCPU.blocked), 0);
    }
  }

  isBlocked(vcpu: number): boolean {
    return Atomics.load(this.#words, this.#wordOf(vcpu, VCPU.blocked)) !== 0;
  }

  // ── fault slots ──
  //
  // A fault slot is one word: the state of the fault, its result, and its number. The number makes a
  // completion that was meant for an earlier fault miss a later one.

  /**
   * vCPU: raises a fault on a page. `claimed`: the page is populated, and only the slot thread has to act.
   */
  raiseFault(vcpu: number, page: PageIndex, state: 1 | 2): void {
    const word = this.#wordOf(vcpu, VCPU.fault);
    Atomics.store(this.#words, this.#wordOf(vcpu, VCPU.page), page);
    const number = (Atomics.load(this.#words, word) & ~STATE_AND_RESULT_BITS) + NEXT_FAULT;
    Atomics.store(this.#words, word, number | state);
    if (state === FAULT.pending) Atomics.add(this.#words, WORD.raised, 1);
  }

  /** vCPU: waits until its fault is completed and returns the result. */
  awaitCompletion(vcpu: number): number {
    const word = this.#wordOf(vcpu, VCPU.fault);
    for (;;) {
      const fault = Atomics.load(this.#words, word);
      if ((fault & STATE_BITS) === FAULT.completed) {
        Atomics.store(this.#words, word, fault & ~STATE_AND_RESULT_BITS);
        return (fault & STATE_AND_RESULT_BITS) >>> RESULT_SHIFT;
      }
      Atomics.wait(this.#words, word, fault);
    }
  }

  /** Number of faults raised so far: the resolver looks at the fault slots when it has changed. */
  get raisedFaults(): number {
    return Atomics.load(this.#words, WORD.raised);
  }

  /** Resolver: claims a vCPU's pending fault and returns its page; -1 when there is none. */
  claimFault(vcpu: number): PageIndex {
    const word = this.#wordOf(vcpu, VCPU.fault);
    const fault = Atomics.load(this.#words, word);
    if ((fault & STATE_BITS) !== FAULT.pending) return -1;
    const page = Atomics.load(this.#words, this.#wordOf(vcpu, VCPU.page)) >>> 0;
    const claimed = (fault & ~STATE_BITS) | FAULT.claimed;
    return Atomics.compareExchange(this.#words, word, fault, claimed) === fault ? page : -1;
  }

  /** The page a vCPU waits for, or -1. */
  waitsFor(vcpu: number): PageIndex {
    const state = Atomics.load(this.#words, this.#wordOf(vcpu, VCPU.fault)) & STATE_BITS;
    if (state !== FAULT.pending && state !== FAULT.claimed) return -1;
    return Atomics.load(this.#words, this.#wordOf(vcpu, VCPU.page)) >>> 0;
  }

  /** Completes the fault of every vCPU that waits for one of these pages; returns how many. */
  completeFaults(first: PageIndex, count: number, result: number = RESULT.retry): number {
    let completed = 0;
    for (let vcpu = 0; vcpu < this.vcpus; vcpu++) {
      if (this.#completeFault(vcpu, first, count, result)) completed++;
    }
    return completed;
  }

  #completeFault(vcpu: number, first: PageIndex, count: number, result: number): boolean {
    const word = this.#wordOf(vcpu, VCPU.fault);
    for (;;) {
      const fault = Atomics.load(this.#words, word);
      const state = fault & STATE_BITS;
      if (state !== FAULT.pending && state !== FAULT.claimed) return false;
      const page = Atomics.load(this.#words, this.#wordOf(vcpu, VCPU.page)) >>> 0;
      const completed = (fault & ~STATE_AND_RESULT_BITS) | FAULT.completed | (result << RESULT_SHIFT);
      if (page < first || page >= first + count) {
        // The page may belong to a later fault than the one that was loaded.
        if (Atomics.load(this.#words, word) === fault) return false;
      } else if (Atomics.compareExchange(this.#words, word, fault, completed) === fault) {
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

  countUpdate(slots: number): void {
    Atomics.add(this.#words, WORD.updates, 1);
    Atomics.add(this.#words, WORD.slotsChanged, slots);
  }

  // ── mappings ──

  /**
   * Resolver: asks the slot thread to unmap pages from the VMM's address space, so that there are mappings
   * for others. `needed`: a requested page waits for one.
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

  /** Slot thread: `runs` runs of pages were unmapped, for all requests made until then. */
  answerRoom(runs: number, needed: boolean): void {
    if (runs > 0) this.noteUnmapped();
    Atomics.add(this.#words, WORD.unmappedRuns, runs);
    if (needed || runs > 0) Atomics.store(this.#words, WORD.roomless, runs === 0 ? 1 : 0);
    Atomics.add(this.#words, WORD.roomAnswered, 1);
  }

  /** A complete page is not mapped for the VMM. */
  noteUnmapped(): void {
    Atomics.store(this.#words, WORD.unmapped, 1);
  }

  get anyUnmapped(): boolean {
    return Atomics.load(this.#words, WORD.unmapped) === 1;
  }

  get roomAnswers(): number {
    return Atomics.load(this.#words, WORD.roomAnswered);
  }

  /** At the last request for room there was nothing left to unmap. */
  get roomless(): boolean {
    return Atomics.load(this.#words, WORD.roomless) === 1;
  }

  /** Slot thread, the only writer of the times: the vCPUs were paused for `ns`. */
  countPause(ns: number): void {
    this.#times[TIME.paused]! += ns;
    this.#times[TIME.longest] = Math.max(this.#times[TIME.longest]!, ns);
  }

  get memslotUpdates(): MemslotUpdates {
    return {
      updates: Atomics.load(this.#words, WORD.updates),
      slots: Atomics.load(this.#words, WORD.slotsChanged),
      paused_ns: this.#times[TIME.paused]!,
      longestPause_ns: this.#times[TIME.longest]!,
      unmappedRuns: Atomics.load(this.#words, WORD.unmappedRuns),
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

  // ── closing ──

  /** Pages are no longer delivered. */
  get closed(): boolean {
    return Atomics.load(this.#words, WORD.closed) !== CLOSED.open;
  }

  /** The result of a fault that is raised now. */
  get closedResult(): number {
    return Atomics.load(this.#words, WORD.closed) === CLOSED.stopped ? RESULT.stopped : RESULT.closed;
  }

  /** The pager has closed: completes every fault, present and future. */
  close(): void {
    this.#close(CLOSED.closed);
  }

  /** Memslots can no longer be changed: completes every fault, present and future. */
  stop(): void {
    this.#close(CLOSED.stopped);
  }

  /** Control thread: the slot thread has ended and cannot end its pause itself. */
  endAbandonedPause(): void {
    if (this.pause & 1) this.endPause();
  }

  #close(closed: number): void {
    Atomics.compareExchange(this.#words, WORD.closed, CLOSED.open, closed);
    this.completeFaults(0, 2 ** 32, this.closedResult);
  }
}
