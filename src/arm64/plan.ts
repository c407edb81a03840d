import {
  type Answer,
  type Ask,
  EventLoopTurns,
  type Gpa,
  type GpaRange,
  type Program,
  WINDOW_BYTES,
} from '../api/index.js';
import { EFAULT, type Status } from './errno.js';
import { PlanFetches } from './plan-fetches.js';
import type { PlanMemory } from './plan-memory.js';
import { PlanOverlay, windowOf } from './plan-overlay.js';
import { GICR, GITS } from './registers.js';
import type { Vgic } from './vgic.js';
import { type WorkBound, WorkLimitError, type WorkLimits } from './work.js';

/** Bounds are those of the GIC that the plan starts from, unless they are given here. */
export interface PlanOptions extends WorkLimits {
  /** Pages fetched at once (default 64). */
  readonly inFlight?: number;
  /**
   * Fetch pages that are only likely to be touched, to need fewer rounds (default none). At most
   * `maxPages` of them (default 1024), at most `maxPagesPerRange` of one table (default 128), and
   * never outside the extents that registers and table entries state.
   */
  readonly speculation?: { readonly maxPages?: number; readonly maxPagesPerRange?: number };
  /** Bound on touched pages, against hostile tables (default 16384, 64 MiB). */
  readonly maxPages?: number;
  /**
   * Aborts the plan, which rejects with its reason at once and holds nothing: what was under way is let go of
   * as it comes.
   */
  readonly signal?: AbortSignal;
  /**
   * Resolves after a turn of the event loop (default by setImmediate): for memory with a clock of its own.
   */
  readonly turn?: () => Promise<void>;
}

/** The bound of a plan that it reached. */
export type PlanBound = WorkBound | 'maxPages';

/** A page that the operation will touch; `R` if its first access is a read. */
export interface PlannedTouch {
  readonly page: Gpa;
  readonly kind: 'R' | 'W';
}

/** What an operation will touch. Its pages are present and held until {@link Plan.release}. */
export interface Plan {
  /** Exactly the pages the operation will touch, in the order of their first touch. */
  readonly touched: readonly PlannedTouch[];
  /** What the operation will return: 0 or minus an errno. */
  readonly status: Status;
  /**
   * False if a bound cut the dry run short: `touched` is then the beginning of the list, and `status` says
   * nothing. KVM has no such bounds: it would go on for long, with the VM's locks held. Do not restore such
   * tables.
   */
  readonly complete: boolean;
  /** Which bound cut it short, if one did. */
  readonly cutBy: PlanBound | undefined;
  /**
   * The pages that were not present, by round: those of one round could be asked for as soon as the
   * rounds before had arrived. Their number is the number of source latencies the plan cannot avoid.
   */
  readonly rounds: readonly (readonly Gpa[])[];
  /** Pages that were fetched and will not be touched: what speculation wasted. Not held any more. */
  readonly speculated: readonly Gpa[];
  /**
   * The GIC as it will be after the operation: what a plan of the next one starts from, such as that
   * of the next ITS, which shares LPIs with this one. LPI configuration in it is exact too.
   */
  readonly after: Vgic;
  /** Ends the holds. Idempotent. */
  release(): void;
  [Symbol.dispose](): void;
}

/** The dry run reached its bound. */
class Cut extends Error {}

/**
 * Plans an operation: runs the very same program on a copy of the GIC and a copy-on-write overlay of
 * the guest's memory, making present what it touches. Run the real operation, then release the plan.
 *
 * Preconditions: `vgic` is as the real device is: registers, vcpu_ids, LPIs and collections that exist
 * already, quirks of its kernel, mode `kvm` if a real device will run the operation; `memory` shows the same
 * memslots. The guest does not change the tables between plan and operation (no vCPU runs during a restore or
 * save).
 *
 * Who may block: the caller, on the memory's fetches; the event loop has its turn every 10 ms. The GIC given
 * is not changed.
 *
 * Errors: rejects with the reason of `signal`, or with whatever the memory's `fetch` rejects with, holding
 * nothing. An errno of a single page is no rejection: the operation is expected to meet it.
 */
export async function planOperation(
  vgic: Vgic,
  memory: PlanMemory,
  operation: (copy: Vgic) => Program<Status>,
  options: PlanOptions = {},
): Promise<Plan> {
  const { signal, maxSteps, maxEntries } = options;
  signal?.throwIfAborted();
  const limits = {
    ...(maxSteps === undefined ? {} : { maxSteps }),
    ...(maxEntries === undefined ? {} : { maxEntries }),
  };
  const fetches = new PlanFetches(memory, options.inFlight ?? 64, signal);
  try {
    const attempt = (goesAhead: boolean): Promise<DryRun> => {
      const copy = vgic.clone(vgic.mode, limits);
      return dryRun(new DryRun(copy, memory, fetches, options, goesAhead), operation, options);
    };
    const first = await attempt(true);
    await fetches.settle();
    const failed = [...fetches.all()].some(({ content }) => typeof content === 'number');
    // Where the first run went on without a page, only a second one, over all of them, can be exact.
    const run = first.assumed || failed ? await attempt(false) : first;
    await fetches.settle();
    return makePlan(run, fetches);
  } catch (error) {
    await fetches.abandon();
    throw error;
  } finally {
    fetches.end();
  }
}

/** Plans KVM_DEV_ARM_ITS_RESTORE_TABLES. */
export const planRestore = (vgic: Vgic, memory: PlanMemory, its = 0, options?: PlanOptions): Promise<Plan> =>
  planOperation(vgic, memory, (copy) => copy.restoreTables(its), options);

/** Plans KVM_DEV_ARM_ITS_SAVE_TABLES. */
export const planSave = (vgic: Vgic, memory: PlanMemory, its = 0, options?: PlanOptions): Promise<Plan> =>
  planOperation(vgic, memory, (copy) => copy.saveTables(its), options);

/** Plans KVM_DEV_ARM_VGIC_SAVE_PENDING_TABLES. */
export const planSavePending = (vgic: Vgic, memory: PlanMemory, options?: PlanOptions): Promise<Plan> =>
  planOperation(vgic, memory, (copy) => copy.savePendingTables(), options);

/** Plans setting GICR_CTLR.EnableLPIs of a vCPU. */
export const planEnableLpis = (
  vgic: Vgic,
  memory: PlanMemory,
  vcpu: number,
  options?: PlanOptions,
): Promise<Plan> =>
  planOperation(vgic, memory, (copy) => copy.writeRedistributorRegister(vcpu, GICR.CTLR, 1n, 4), options);

/**
 * Plans setting GITS_CTLR.Enabled of an ITS, which executes the commands that were queued when it was saved
 * (GITS_CREADR is not GITS_CWRITER), with every page that they touch.
 */
export const planEnableIts = (
  vgic: Vgic,
  memory: PlanMemory,
  its = 0,
  options?: PlanOptions,
): Promise<Plan> => planOperation(vgic, memory, (copy) => copy.writeItsRegister(its, GITS.CTLR, 1n), options);

/** Plans the commands that writing this value to GITS_CWRITER executes. */
export const planCommands = (
  vgic: Vgic,
  memory: PlanMemory,
  cwriter: bigint,
  its = 0,
  options?: PlanOptions,
): Promise<Plan> =>
  planOperation(vgic, memory, (copy) => copy.writeItsRegister(its, GITS.CWRITER, cwriter), options);

/** One pass of a program over the overlay. */
class DryRun {
  readonly touched = new Map<Gpa, 'R' | 'W'>();
  readonly #overlay = new PlanOverlay();
  readonly #maxPages: number;
  readonly #speculative: number;
  readonly #perRange: number;
  #guesses = 0;
  /** Rounds behind what the program knows by now. */
  #known = 0;
  /** The page of an LPI table that a hint named just now: no decision depends on its content. */
  #dataOnly: Gpa | undefined;
  /** The program was given zeros for a page that had not arrived. */
  assumed = false;
  cutBy: PlanBound | undefined;
  status: Status = 0;

  constructor(
    readonly vgic: Vgic,
    readonly memory: PlanMemory,
    readonly fetches: PlanFetches,
    { maxPages, speculation }: PlanOptions,
    private readonly goesAhead: boolean,
  ) {
    this.#maxPages = maxPages ?? 16384;
    this.#speculative = goesAhead && speculation !== undefined ? (speculation.maxPages ?? 1024) : 0;
    this.#perRange = speculation?.maxPagesPerRange ?? 128;
  }

  answer(ask: Ask): Answer | Promise<Answer> {
    const dataOnly = this.#dataOnly;
    this.#dataOnly = undefined;
    switch (ask.ask) {
      case 'visible':
        return { answer: 'visible', visible: this.memory.visible(windowOf(ask.gpa)) };
      case 'hint':
        this.#hint(ask.why, ask.ranges);
        return { answer: 'done' };
      case 'read':
        return this.#read(ask.page, dataOnly === ask.page);
      case 'write':
        return this.#write(ask.gpa, ask.bytes);
      default:
        return ask satisfies never;
    }
  }

  #hint(why: string, ranges: readonly GpaRange[]): void {
    if (why === 'lpi-configuration' || why === 'lpi-pending') {
      this.#dataOnly = ranges[0]?.start;
      return;
    }
    for (const { start, length } of ranges) this.#guess(start, start + length);
  }

  #guess(start: bigint, end: bigint): void {
    let left = this.#perRange;
    for (let page = windowOf(start); page < end && left > 0; page = (page + BigInt(WINDOW_BYTES)) as Gpa) {
      if (this.#guesses >= this.#speculative) return;
      left--;
      if (this.fetches.get(page) !== undefined || !this.memory.visible(page)) continue;
      this.#guesses++;
      this.fetches.request(page, this.#known + 1, false);
    }
  }

  #touch(page: Gpa, kind: 'R' | 'W'): void {
    if (this.touched.has(page)) return;
    if (this.touched.size >= this.#maxPages) throw new Cut();
    this.touched.set(page, kind);
  }

  #read(page: Gpa, dataOnly: boolean): Answer | Promise<Answer> {
    if (!this.memory.visible(page)) return { answer: 'fault', errno: EFAULT };
    this.#touch(page, 'R');
    const fetch = this.fetches.request(page, this.#known + 1, true);
    if (fetch.content === undefined) {
      if (!dataOnly || !this.goesAhead) return this.#wait(page);
      this.assumed = true;
      return { answer: 'bytes', bytes: this.#overlay.apply(page, new Uint8Array(WINDOW_BYTES)) };
    }
    if (typeof fetch.content === 'number') return { answer: 'fault', errno: fetch.content };
    if (!dataOnly) this.#known = Math.max(this.#known, fetch.round);
    return { answer: 'bytes', bytes: this.#overlay.apply(page, fetch.content) };
  }

  async #wait(page: Gpa): Promise<Answer> {
    const fetch = this.fetches.get(page)!;
    const content = await this.fetches.arrive(fetch);
    this.#known = Math.max(this.#known, fetch.round);
    if (typeof content === 'number') return { answer: 'fault', errno: content };
    return { answer: 'bytes', bytes: this.#overlay.apply(page, content) };
  }

  /** A write needs the page to be there, but not its content: the run goes on while it is fetched. */
  #write(gpa: Gpa, bytes: Uint8Array): Answer {
    const page = windowOf(gpa);
    if (!this.memory.visible(page) || this.memory.writable?.(page) === false)
      return { answer: 'fault', errno: EFAULT };
    this.#touch(page, 'W');
    const { content } = this.fetches.request(page, this.#known + 1, true);
    if (typeof content === 'number') return { answer: 'fault', errno: content };
    this.#overlay.write(gpa, bytes);
    return { answer: 'done' };
  }
}

async function dryRun(
  run: DryRun,
  operation: (copy: Vgic) => Program<Status>,
  { signal, turn }: PlanOptions,
): Promise<DryRun> {
  const program = operation(run.vgic);
  const turns = new EventLoopTurns(signal, turn);
  try {
    let step = program.next();
    while (step.done !== true) {
      const answer = run.answer(step.value);
      const answered = answer instanceof Promise ? await answer : answer;
      if (turns.due()) await turns.take();
      step = program.next(answered);
    }
    run.status = step.value;
  } catch (error) {
    if (error instanceof Cut) run.cutBy = 'maxPages';
    else if (error instanceof WorkLimitError) run.cutBy = error.bound;
    else throw error;
  } finally {
    program.return(0);
  }
  return run;
}

function makePlan(run: DryRun, fetches: PlanFetches): Plan {
  const wasted = (page: Gpa): boolean => !run.touched.has(page);
  const rounds: Gpa[][] = [];
  const speculated: Gpa[] = [];
  for (const { page, round } of fetches.all()) {
    if (wasted(page)) speculated.push(page);
    else if (round > 0) (rounds[round - 1] ??= []).push(page);
  }
  fetches.release(({ page }) => wasted(page));
  let held = true;
  const release = (): void => {
    if (held) fetches.release(({ page }) => !wasted(page));
    held = false;
  };
  return {
    touched: [...run.touched].map(([page, kind]) => ({ page, kind })),
    status: run.status,
    complete: run.cutBy === undefined,
    cutBy: run.cutBy,
    rounds: rounds.filter((pages) => pages.length > 0),
    speculated,
    after: run.vgic,
    release,
    [Symbol.dispose]: release,
  };
}
