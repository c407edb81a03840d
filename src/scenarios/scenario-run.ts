import {
  type Attachment,
  type Backend,
  fileOffset,
  type Gpa,
  gpa,
  type GpaRange,
  type MemoryKind,
  openPager,
  type PageIndex,
  type Pager,
  type PagerPolicy,
  type PageSource,
  eventLoopTurn,
} from '../api/index.js';
import {
  type ModelAccess,
  ModelAttachment,
  type ModelKernel,
  settle,
  type Stepper,
} from '../backends/memory/index.js';
import { condensed } from '../conformance/index.js';
import { type UapiAttachment } from '../prototypes/index.js';
import { type CaseOutcome, type CaseResult, type CaseSeen } from './scenario.js';
import { type ScenarioEntry, type ScenarioEvent } from './scenario-event.js';
import { type UapiInUse } from './uapis.js';

export const PAGE_BYTES = 4096;
export const START = gpa(0x8000_0000n);
/** Turns of the event loop after which, with nothing done in any of them, nothing goes on any more. */
const QUIET_TURNS = 12;
/** More turns than any run has that comes to an end. */
const MOST_TURNS = 100_000;

export interface ScenarioRunOptions {
  readonly pages: number;
  readonly memory?: MemoryKind;
  /** What the source has; default: pages that say where they belong. */
  readonly contents?: Uint8Array;
  readonly policy?: Partial<PagerPolicy>;
}

/** A request for an access, by page. */
export type ScenarioAccess = Parameters<ModelKernel['access']>[0];

/** A UAPI's kernel with a pager on it, and the notes of what went on. */
export class ScenarioRun {
  readonly source: HeldSource;
  readonly trace: ScenarioEntry[] = [];
  readonly #uapi: UapiInUse;
  readonly #options: ScenarioRunOptions;
  readonly #attachment: UapiAttachment;
  #pager: Pager;
  readonly #dead: Pager[] = [];

  private constructor(
    uapi: UapiInUse,
    options: ScenarioRunOptions,
    parts: { attachment: UapiAttachment; source: HeldSource; pager: Pager },
  ) {
    this.#uapi = uapi;
    this.#options = options;
    this.#attachment = parts.attachment;
    this.source = parts.source;
    this.#pager = parts.pager;
    this.kernel.trace = (event) => this.note(event);
    this.#watchInstalls();
  }

  static async open(uapi: UapiInUse, options: ScenarioRunOptions): Promise<ScenarioRun> {
    const source = new HeldSource(options.contents ?? patterned(options.pages));
    let attachment: UapiAttachment | undefined;
    const backend: Backend = {
      ...uapi.backend(),
      attach: async (layout, states) => (attachment = await uapi.backend().attach(layout, states)),
    };
    const pager = await pagerOn(backend, uapi, options, source);
    return new ScenarioRun(uapi, options, { attachment: attachment!, source, pager });
  }

  get kernel(): ModelKernel {
    return this.#attachment.kernel;
  }

  get pager(): Pager {
    return this.#pager;
  }

  /** A new access; it does nothing before it is stepped. */
  access(request: ScenarioAccess): ModelAccess {
    return this.kernel.access(request);
  }

  /** Lets an access, or a change of memory, go on until it has ended, or waits for what never comes. */
  async settled<S extends Stepper>(stepper: S): Promise<S> {
    await Promise.race([settle(stepper), this.quiet()]);
    return stepper;
  }

  async touch(request: ScenarioAccess): Promise<ModelAccess> {
    return this.settled(this.access(request));
  }

  /** The VMM's own thread drops pages; `remove` on shared memory, where dropping leaves the page cache. */
  discard(page: PageIndex, count = 1): Stepper {
    return this.#attachment.stepping.discard({ first: page, count }, 'dontneed') as Stepper;
  }

  /** Ends demand paging, if the UAPI has a way to. */
  turnOff(): boolean {
    return this.#attachment.stepping.turnOff();
  }

  /** The handler is dead and another takes the descriptor over; it knows which pages had come. */
  async takeOver(): Promise<void> {
    const { coverage, supports } = this.#attachment;
    const present = presentBitmap(this.#pager);
    const replacement = new ModelAttachment({
      kernel: this.kernel,
      coverage,
      supports,
      staging_bytes: 64 * 1024,
    });
    const backend: Backend = {
      ...this.#uapi.backend(),
      attach: (): Promise<Attachment> => Promise.resolve(replacement),
    };
    // It is only abandoned: its port, and what it has under way, are ended with the run.
    this.#dead.push(this.#pager);
    this.note({ actor: { kind: 'handler' }, kind: 'handler-restarts' });
    const source = new HeldSource(this.source.contents);
    this.#pager = await pagerOn(backend, this.#uapi, { ...this.#options, present }, source);
    this.#watchInstalls();
  }

  note(event: ScenarioEvent): void {
    this.trace.push({ moment: this.trace.length + 1, ...event });
  }

  /** Resolves when nothing goes on any more. */
  async quiet(): Promise<void> {
    let seen = -1;
    for (let turn = 0, still = 0; still < QUIET_TURNS && turn < MOST_TURNS; turn++) {
      await eventLoopTurn();
      still = seen === this.trace.length ? still + 1 : 0;
      seen = this.trace.length;
    }
  }

  /** What a page of the watched mapping holds, without touching it. */
  look(page: PageIndex): Uint8Array | undefined {
    return this.kernel.memory.mappedFrame(page);
  }

  range(page: PageIndex, count = 1): GpaRange {
    return { start: gpa((START as bigint) + BigInt(page * PAGE_BYTES)), length: BigInt(count * PAGE_BYTES) };
  }

  pageOf(address: Gpa): { readonly page: PageIndex; readonly offset: number } {
    const from = Number((address as bigint) - (START as bigint));
    return { page: Math.floor(from / PAGE_BYTES), offset: from % PAGE_BYTES };
  }

  result(
    name: string,
    outcome: CaseOutcome,
    seen: CaseSeen,
    figures: Readonly<Record<string, number>> = {},
  ): CaseResult {
    return { case: name, outcome, seen, figures, trace: condensed(this.trace) };
  }

  /** Ends it all; no access that waits is served any more. */
  async close(): Promise<void> {
    for (const pager of [this.#pager, ...this.#dead]) await pager.close({ missing: 'leave' });
  }

  #watchInstalls(): void {
    this.#pager.on('stopped', (error) =>
      this.note({ actor: { kind: 'pager' }, kind: 'pager-stops', error: error.message }),
    );
  }
}

async function pagerOn(
  backend: Backend,
  uapi: UapiInUse,
  { pages, memory = uapi.memory, policy, present }: ScenarioRunOptions & { readonly present?: Uint8Array },
  source: PageSource,
): Promise<Pager> {
  return openPager({
    backend,
    regions: [
      {
        gpa: START,
        length: BigInt(pages * PAGE_BYTES),
        sourceOffset: fileOffset(0),
        memory,
        pageSize: PAGE_BYTES,
      },
    ],
    source,
    // What slips past is what is to be seen.
    needs: [],
    policy: { faultAroundPages: 1, ...policy },
    ...(present && { present }),
  });
}

/** A source in memory that can be told to keep an answer back. */
export class HeldSource implements PageSource {
  readonly synchronous = false;
  readonly length: number;
  /** Bytes asked for. */
  read_bytes = 0;
  readonly #held = new Map<number, (() => void)[]>();

  constructor(readonly contents: Uint8Array) {
    this.length = contents.length;
  }

  /** Reads that touch this page are not answered until {@link release}. */
  hold(page: PageIndex): void {
    this.#held.set(page, []);
  }

  release(page: PageIndex): void {
    const waiting = this.#held.get(page) ?? [];
    this.#held.delete(page);
    for (const goOn of waiting) goOn();
  }

  async read(offset: number, into: Uint8Array): Promise<number> {
    this.read_bytes += into.length;
    for (const [page, waiting] of this.#held) {
      const at = page * PAGE_BYTES;
      if (at < offset + into.length && offset < at + PAGE_BYTES)
        await new Promise<void>((resolve) => waiting.push(resolve));
    }
    into.set(this.contents.subarray(offset, offset + into.length));
    return into.length;
  }
}

/** Pages whose every word names the page and its place in it; none is zero. */
export function patterned(pages: number): Uint8Array {
  const words = new Uint32Array((pages * PAGE_BYTES) / 4);
  for (let at = 0; at < words.length; at++)
    words[at] = ((Math.floor((at * 4) / PAGE_BYTES) + 1) << 12) | (at & 0x3ff);
  return new Uint8Array(words.buffer);
}

function presentBitmap(pager: Pager): Uint8Array {
  const bits = new Uint8Array(Math.ceil(pager.layout.pageCount / 8));
  for (let page = 0; page < pager.layout.pageCount; page++)
    if (pager.states.allPresent({ first: page, count: 1 })) bits[page >>> 3]! |= 1 << (page & 7);
  return bits;
}
