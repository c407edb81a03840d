import {
  type AccessSite,
  type Attachment,
  DemandPagingError,
  type FaultPort,
  fileOffset,
  gpa,
  type KernelEvent,
  MemoryLayout,
  openPort,
  type PageIndex,
  type PageRange,
} from '../api/index.js';
import { Contents } from './contents.js';
import { type Failure, type OperationRef, PropertyFailure } from './failure.js';
import { NotedPort } from './noted-port.js';
import { Choices } from './schedule.js';
import { ScriptedSource } from './scripted-source.js';
import {
  awaitedOf,
  type Body,
  pause,
  type Setting,
  type Environment,
  type Touch,
  type TouchRequest,
  type Wait,
} from './environment.js';
import { SteppedPager } from './stepped-pager.js';
import { SteppedTask, SteppedTouch } from './stepped-task.js';
import { type Stepped, type SteppedSubject, type Stepping } from './subject.js';
import { Trace, type TraceEvent } from './trace.js';

/** More steps than any run takes that comes to an end. */
const STEP_LIMIT = 20_000;
/** An event number of no kernel's. */
const UNKNOWN_EVENT = 0x7f;

export interface SteppedOptions {
  /** Wakes every accessor when nothing goes on any more, once at a time: hides lost wake-ups, to tell faults apart. */
  readonly nudge: boolean;
}

/** A environment on a deterministic kernel. Everything that happens is a step, and the choices say whose. */
export class SteppedEnvironment implements Environment {
  readonly exact = true;
  readonly contents: Contents;
  readonly source: ScriptedSource;
  readonly trace = new Trace();
  readonly layout: MemoryLayout;
  readonly stepping: Stepping;
  readonly port: FaultPort;
  /** Steps taken. */
  moment = 0;
  #pager: SteppedPager | undefined;
  readonly #choices: Choices;
  readonly #touches: SteppedTouch[] = [];
  /** Those not seen to have ended. */
  #open: SteppedTouch[] = [];
  #changes: { readonly stepped: Stepped; readonly task: SteppedTask }[] = [];
  readonly #checks: (() => Failure | undefined)[] = [];
  #preempting = false;
  /** The body is inside a step of its own. */
  #failure: PropertyFailure | undefined;

  private constructor(
    readonly subject: SteppedSubject,
    readonly setting: Setting,
    readonly attachment: Attachment,
    port: FaultPort,
    choices: Uint8Array,
    private readonly options: SteppedOptions,
  ) {
    const { pageSize } = attachment.layout.regions[0]!;
    this.layout = attachment.layout;
    this.port = new NotedPort(port, (event) => this.note(event));
    this.contents = contentsOf(pageSize);
    this.source = new ScriptedSource(this.contents, setting.pages, setting.synchronous);
    this.#choices = new Choices(choices);
    this.stepping = subject.stepping(attachment);
    this.stepping.trace = (event) => this.#kernelEvent(event);
    this.stepping.preempt = (stuck) => this.#preempt(stuck);
    this.source.meanwhile = () => this.#preempt(false);
    if (setting.level === 'pager') this.#pager = new SteppedPager(this, setting.policy);
  }

  static async open(
    subject: SteppedSubject,
    setting: Setting,
    choices: Uint8Array,
    options: SteppedOptions,
  ): Promise<SteppedEnvironment> {
    const attachment = await subject.backend().attach(layoutOf(subject, setting.pages));
    const port = await openPort(attachment.shards[0]!.port);
    return new SteppedEnvironment(subject, setting, attachment, port, choices, options);
  }

  async close(): Promise<void> {
    this.stepping.preempt = () => {};
    this.port.close();
    await this.attachment.close();
  }

  get sites(): readonly AccessSite[] {
    return this.subject.sites;
  }

  get pager(): SteppedPager {
    if (!this.#pager) throw new TypeError('this environment has a bare port');
    return this.#pager;
  }

  touch(request: TouchRequest): Touch {
    const { site = 'vmm-load', page, offset = 0, bytes, pieces = 1 } = request;
    const length = bytes?.length ?? request.length ?? 8;
    const access = this.stepping.access({
      site,
      page,
      offset,
      length,
      piece_bytes: Math.ceil(length / pieces),
      ...(bytes && { bytes }),
    });
    const touch = new SteppedTouch(site, page, offset, this.moment, access, bytes !== undefined);
    this.#touches.push(touch);
    this.#open.push(touch);
    this.note({ actor: access.actor, kind: 'access-starts', write: bytes !== undefined, page });
    return touch;
  }

  discard(pages: PageRange): SteppedTask {
    // MADV_DONTNEED leaves the page cache of shared memory as it is: nothing would be removed.
    const how = this.layout.regions[0]!.memory === 'anonymous' ? 'dontneed' : 'remove';
    return this.change({ operation: 'discard', pages }, how, this.stepping.discard(pages, how));
  }

  unmap(pages: PageRange): SteppedTask {
    return this.change({ operation: 'unmap', pages }, 'unmap', this.stepping.unmap(pages));
  }

  breakHandler(): void {
    this.note({ actor: { kind: 'kernel' }, kind: 'unknown-event-sent' });
    this.stepping.sendUnknown(UNKNOWN_EVENT);
  }

  look(page: PageIndex): Uint8Array | undefined {
    const bytes = new Uint8Array(this.contents.page_bytes);
    try {
      this.attachment.memory!.load(this.layout.gpaOf(page), bytes);
      return bytes;
    } catch (error) {
      if (error instanceof DemandPagingError) return undefined;
      throw error;
    }
  }

  watch(check: () => Failure | undefined): void {
    this.#checks.push(check);
  }

  note(event: TraceEvent | (() => TraceEvent)): void {
    this.trace.add(this.moment, event);
  }

  /** How an access ended the environment says itself, with what it has read. */
  #kernelEvent(event: KernelEvent): void {
    if (event.kind !== 'access-state' || (event.state !== 'done' && event.state !== 'errored'))
      this.note(event);
  }

  /** Runs a body to its end. Throws {@link PropertyFailure}. */
  run(body: Body): void {
    let wait: Wait = pause;
    for (;;) {
      if (
        !this.#stepOne(wait, () => {
          const { value, done } = body.next();
          wait = done ? OVER : value;
        })
      )
        this.#unstick(wait);
      if (wait === OVER) return;
      if (this.#failure) throw this.#failure;
      if (this.moment > STEP_LIMIT) throw endless(wait);
    }
  }

  /** One step of some thread, the body included where its wait is over. False where none can go on. */
  #stepOne(wait: Wait, goOn: () => void): boolean {
    const actors = this.#actors(true);
    if (wait.until()) actors.push(goOn);
    if (actors.length === 0) return false;
    this.#do(actors[this.#choices.pick(actors.length)]!);
    return true;
  }

  #do(step: () => void): void {
    this.moment++;
    step();
    this.#look();
  }

  /** What the threads could do now. `all`: not from inside the resolver. */
  #actors(all: boolean): (() => void)[] {
    const actors: (() => void)[] = [];
    for (const { access } of this.#open) if (access.runnable) actors.push(() => access.step());
    for (const { stepped } of this.#changes) if (stepped.runnable) actors.push(() => stepped.step());
    const { answerable } = this.source;
    if (answerable > 0) actors.push(() => this.source.answer(this.#choices.pick(answerable)));
    if (!all || !this.#pager) return actors;
    const pager = this.#pager;
    if (pager.resolverRunnable) actors.push(() => void pager.turn());
    if (pager.controlRunnable) actors.push(() => pager.stepControl(this.#choices.pick(16)));
    return actors;
  }

  /** Another thread may run while the resolver is inside the kernel or a source. */
  #preempt(stuck: boolean): void {
    if (this.#preempting) return;
    this.#preempting = true;
    // An exception must not pass through the kernel's caller, who may catch it: it is kept.
    for (let least = stuck ? 1 : 0; least > 0 || this.#choices.now(3); least--) {
      const actors = this.#actors(false);
      if (actors.length === 0) break;
      this.#do(actors[this.#choices.pick(actors.length)]!);
    }
    this.#preempting = false;
    if (this.moment > STEP_LIMIT + 1000) throw endless(pause);
  }

  /** Takes note of what has ended, and checks what is watched. */
  #look(): void {
    if (this.#open.length > 0) {
      for (const touch of this.#open) {
        if (!touch.settled) continue;
        touch.ended = this.moment;
        this.#tellEnd(touch);
      }
      this.#open = this.#open.filter((touch) => !touch.settled);
    }
    if (this.#changes.length > 0) {
      for (const { stepped, task } of this.#changes) if (stepped.ended) task.settle(this.moment);
      this.#changes = this.#changes.filter(({ task }) => !task.settled);
    }
    for (const check of this.#checks) {
      const failure = check();
      if (failure) this.#failure ??= new PropertyFailure(failure);
    }
  }

  #tellEnd({ access, page, offset, end, errno, write }: SteppedTouch): void {
    if (end !== 'done' && end !== 'errored') return;
    const { actor, bytes } = access;
    const event = { actor, kind: 'access-ends', end, write, errno, page } as const;
    // What was read does not change any more.
    this.note(
      write || end === 'errored'
        ? event
        : () => ({ ...event, seen: this.contents.recognise(bytes, page, offset) }),
    );
  }

  /** No thread can go on: time passes, or a spurious turn finds something, or that was it. */
  #unstick(wait: Wait): void {
    this.moment++;
    const pager = this.#pager;
    if (pager?.passTime() || pager?.turn()) return this.#look();
    if (wait.until()) return;
    if (this.options.nudge && this.#nudge()) return;
    const waiting = this.#open.map(({ ref }) => ref);
    throw new PropertyFailure({ kind: 'stuck', awaited: awaitedOf(wait), waiting });
  }

  #nudges = 0;

  #nudge(): boolean {
    if (this.#open.length === 0 || this.#nudges++ > 50) return false;
    this.note({ actor: { kind: 'suite' }, kind: 'all-woken' });
    this.stepping.queue.wake({ first: 0, count: this.layout.pageCount });
    return this.#open.some(({ access }) => access.runnable);
  }

  change(ref: OperationRef, change: 'dontneed' | 'remove' | 'unmap', stepped: Stepped): SteppedTask {
    const task = new SteppedTask(ref, this.moment);
    this.#changes.push({ stepped, task });
    this.note({ actor: { kind: 'guest-or-vmm' }, kind: 'change-starts', change, pages: ref.pages! });
    return task;
  }
}

const OVER: Wait = { ...pause };

const endless = (wait: Wait): PropertyFailure =>
  new PropertyFailure({ kind: 'no-end', steps: STEP_LIMIT, awaited: awaitedOf(wait) });

const GUEST_START = 0x4000_0000;

export function layoutOf(
  subject: { readonly memory?: SteppedSubject['memory']; readonly page_bytes?: number },
  pages: number,
): MemoryLayout {
  const { memory = 'anonymous', page_bytes = 4096 } = subject;
  return new MemoryLayout([
    {
      gpa: gpa(GUEST_START),
      length: BigInt(pages * page_bytes),
      sourceOffset: fileOffset(0),
      memory,
      pageSize: page_bytes,
    },
  ]);
}

/** Patterns are the same for every run. */
const KNOWN = new Map<number, Contents>();

export function contentsOf(page_bytes: number): Contents {
  let contents = KNOWN.get(page_bytes);
  if (!contents) KNOWN.set(page_bytes, (contents = new Contents(page_bytes)));
  return contents;
}
