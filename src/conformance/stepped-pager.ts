import {
  type AfterDiscard,
  type Attachment,
  type Command,
  type CommandReply,
  completePolicy,
  Counters,
  type FaultPort,
  type ResolverEvent,
  PageStates,
  type PageIndex,
  type PagerPolicy,
  type PageRange,
  Resolver,
} from '../api/index.js';
import { type ScriptedSource } from './scripted-source.js';
import { type Operation, type OperationRef } from './failure.js';
import { type Paging, type Task } from './environment.js';
import { SteppedTask } from './stepped-task.js';
import { type Engine, type Stepped, type SteppedSubject, type Stepping } from './subject.js';
import { type TraceEvent } from './trace.js';

/** What the pager needs of its environment. */
export interface PagerEnvironment {
  readonly subject: SteppedSubject;
  readonly attachment: Attachment;
  readonly stepping: Stepping;
  readonly port: FaultPort;
  readonly source: ScriptedSource;
  readonly moment: number;
  /** Something that another thread does to the memory. */
  change(operation: OperationRef, advice: 'dontneed', stepped: Stepped): Task;
  note(event: TraceEvent): void;
}

/** A step of the control thread, or what it waits for. */
type ControlStep = (() => boolean) | undefined;

const RESOLVER = { kind: 'resolver' } as const;

const COMMANDS = {
  ensure: 'ensure',
  prefetch: 'prefetch',
  freeze: 'freeze',
  thaw: 'thaw',
  poison: 'poison',
  protect: 'write-protect',
  unprotect: 'write-unprotect',
} as const;

/** A request under way. Requests are sent in the order in which they were made; from then on each is on its own. */
interface ControlThread {
  readonly steps: Generator<ControlStep, void>;
  waits: ControlStep;
  sent: boolean;
}

/** The library's engine on a deterministic kernel, with its control thread; both are stepped. */
export class SteppedPager implements Paging {
  readonly policy: PagerPolicy;
  readonly states: PageStates;
  readonly events: ResolverEvent[] = [];
  readonly engine: Engine;
  readonly counters = new Counters();
  readonly #environment: PagerEnvironment;
  #control: ControlThread[] = [];
  #failed = false;
  #closed = false;
  /** Virtual milliseconds. */
  #now = 0;

  constructor(environment: PagerEnvironment, policy: Partial<PagerPolicy>) {
    this.#environment = environment;
    const { layout, supports } = environment.attachment;
    this.policy = completePolicy(policy);
    this.states = PageStates.create(layout.pageCount);
    const make = environment.subject.engine ?? ((options) => new Resolver(options));
    this.engine = make({
      layout,
      supports,
      states: this.states,
      pages: [{ first: 0, count: layout.pageCount }],
      port: environment.port,
      source: environment.source,
      policy: this.policy,
      counters: this.counters,
      notify: (event) => this.#event(event),
      now: () => this.#now,
    });
  }

  // ── as the schedule sees it ──

  /** The resolver's thread would do something now. */
  get resolverRunnable(): boolean {
    return (
      !this.#failed &&
      !this.engine.ended &&
      (this.#environment.stepping.hasWork || this.engine.busy || this.engine.nextDue_ms <= this.#now)
    );
  }

  /** A turn of the resolver. What it throws is dealt with as the resolver's thread does. */
  turn(): boolean {
    if (this.#failed || this.engine.ended) return false;
    try {
      return this.engine.turn('none');
    } catch (thrown) {
      this.#environment.note({ actor: RESOLVER, kind: 'resolver-fails', error: String(thrown) });
      this.engine.abort(thrown);
      this.#failed = true;
      return true;
    }
  }

  get controlRunnable(): boolean {
    return this.#ready().length > 0;
  }

  stepControl(which: number): void {
    const ready = this.#ready();
    const thread = ready[which % ready.length];
    if (!thread) return;
    thread.sent = true;
    const { value, done } = thread.steps.next();
    thread.waits = done ? undefined : (value as ControlStep);
    if (done) this.#control = this.#control.filter((other) => other !== thread);
  }

  #ready(): readonly ControlThread[] {
    const next = this.#control.find(({ sent }) => !sent);
    return this.#control.filter((thread) => (thread.sent ? (thread.waits?.() ?? true) : thread === next));
  }

  /** No thread can go on before time does: lets it pass. False where nothing is due. */
  passTime(): boolean {
    const { nextDue_ms } = this.engine;
    if (this.#failed || this.engine.ended || nextDue_ms === Infinity || nextDue_ms <= this.#now) return false;
    this.#now = nextDue_ms;
    this.#environment.note({ actor: { kind: 'time' }, kind: 'clock', ms: this.#now });
    return true;
  }

  // ── as a body sees it ──

  do(operation: Operation, pages: PageRange): SteppedTask {
    const task = this.#task({ operation, pages });
    if (operation === 'discard-refetch' || operation === 'discard-zero')
      this.#start(this.#discard(task, pages, operation === 'discard-zero' ? 'zero' : 'refetch'));
    else this.#start(this.#command(task, { command: COMMANDS[operation], ranges: [pages] }));
    return task;
  }

  close(): SteppedTask {
    const task = this.#task({ operation: 'close' });
    const missing = this.#environment.attachment.supports.verbs.includes('poison') ? 'poison' : 'leave';
    const { attachment } = this.#environment;
    const steps = function* (pager: SteppedPager): Generator<ControlStep, void> {
      if (!pager.#failed && !pager.engine.ended) pager.engine.execute({ command: 'end', missing }, () => {});
      yield;
      pager.#closed = true;
      void attachment.close();
      task.settle(pager.#environment.moment);
    };
    this.#start(steps(this));
    return task;
  }

  isPresent(page: PageIndex): boolean {
    return this.states.isPresent(page);
  }

  load(page: PageIndex, into: Uint8Array): void {
    this.#environment.attachment.memory!.load(this.#environment.attachment.layout.gpaOf(page), into);
  }

  // ── inside ──

  #task(operation: OperationRef): SteppedTask {
    this.#environment.note({ actor: { kind: 'vmm' }, kind: 'operation-starts', operation });
    return new SteppedTask(operation, this.#environment.moment);
  }

  #start(steps: Generator<ControlStep, void>): void {
    this.#control.push({ steps, waits: undefined, sent: false });
  }

  *#command(task: SteppedTask, command: Command): Generator<ControlStep, void> {
    this.#send(command, (reply) => this.#settle(task, reply));
  }

  /** As the pager discards pages: nothing is installed between begin and end. */
  *#discard(task: SteppedTask, pages: PageRange, then: AfterDiscard): Generator<ControlStep, void> {
    let refused: CommandReply | undefined;
    this.#send(
      { command: 'discard-begin', ranges: [pages], then },
      (reply) => (refused = reply.ok ? undefined : reply),
    );
    if (refused) return this.#settle(task, refused);
    // A thread of its own: it goes on while the resolver is inside a turn.
    const discard = this.#environment.change(
      { operation: 'discard', pages },
      'dontneed',
      this.#environment.stepping.discardEverywhere(pages),
    );
    yield () => discard.settled;
    this.#send({ command: 'discard-end', ranges: [pages] }, (reply) => this.#settle(task, reply));
  }

  #send(command: Command, reply: (reply: CommandReply) => void): void {
    const gone = (code: 'HANDLER_DIED' | 'CLOSED'): void =>
      reply({ ok: false, error: { code, message: 'the resolver has ended' } });
    if (this.#failed) return gone('HANDLER_DIED');
    if (this.#closed || this.engine.ended) return gone('CLOSED');
    this.engine.execute(command, reply);
  }

  #settle(task: SteppedTask, reply: CommandReply): void {
    const error = reply.ok ? undefined : reply.error.code;
    this.#environment.note({ actor: RESOLVER, kind: 'operation-ends', operation: task.ref, error });
    task.settle(this.#environment.moment, error);
  }

  #event(event: ResolverEvent): void {
    this.events.push(event);
    const page = 'pages' in event ? event.pages.first : undefined;
    this.#environment.note({ actor: RESOLVER, kind: 'says', event: event.kind, page });
  }
}
