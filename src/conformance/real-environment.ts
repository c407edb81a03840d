import { MessageChannel, type MessagePort } from 'node:worker_threads';
import {
  type AccessSite,
  type Attachment,
  type Backend,
  FaultBatch,
  type FaultPort,
  type MemoryLayout,
  openPager,
  openPort,
  type PageIndex,
  type PageRange,
  type Pager,
  ResolutionBatch,
  servePort,
  type SourceRef,
  VERB,
  eventLoopTurn,
} from '../api/index.js';
import { type Contents } from './contents.js';
import { type Failure, PropertyFailure } from './failure.js';
import { type AccessorPool } from './accessor-pool.js';
import { NotedPort } from './noted-port.js';
import { RealPager } from './real-pager.js';
import { type RealClock, RealTask, RealTouch } from './real-task.js';
import { DirectAccesses } from './direct-accesses.js';
import { fatalSource } from './fatal-source.js';
import { ScriptedSource } from './scripted-source.js';
import {
  awaitedOf,
  type Body,
  type Setting,
  type Environment,
  type Touch,
  type TouchRequest,
  type Wait,
} from './environment.js';
import { contentsOf, layoutOf } from './stepped-environment.js';
import { type RealSubject } from './subject.js';
import { Trace, type TraceEvent } from './trace.js';

/** No run takes this long unless something hangs; machines that are busy with other things included. */
const HANG_MS = 60_000;
/** Between two moments. */
const LEAST_MS = 1e-6;
/** So many looks follow each other at once; after that the processor is left to those who are waited for. */
const EAGER_LOOKS = 32;

/** What an environment has opened. */
interface Opened {
  readonly attachment: Attachment;
  readonly port: FaultPort;
  readonly pager: Pager | undefined;
  readonly source: ScriptedSource;
  /** The serving end of the source, at level `pager`. */
  readonly serving: MessagePort | undefined;
  readonly direct: DirectAccesses;
}

/** A environment on a real kernel: threads and a process access memory, and the schedule is the machine's. */
export class RealEnvironment implements Environment, RealClock {
  readonly exact = false;
  readonly trace = new Trace();
  readonly layout: MemoryLayout;
  readonly attachment: Attachment;
  readonly contents: Contents;
  readonly source: ScriptedSource;
  readonly port: FaultPort;
  readonly #opened: Opened;
  readonly #pager: RealPager | undefined;
  readonly #checks: (() => Failure | undefined)[] = [];
  readonly #tasks: Promise<unknown>[] = [];
  readonly #touching: Promise<void>[] = [];
  readonly #begin_ms = performance.now();
  #moment = 0;
  #touches = 0;
  /** What went wrong with the environment's own machinery. */
  #broken: Error | undefined;

  private constructor(
    readonly subject: RealSubject,
    readonly setting: Setting,
    opened: Opened,
    private readonly accessors: AccessorPool,
  ) {
    this.#opened = opened;
    this.attachment = opened.attachment;
    this.layout = opened.attachment.layout;
    this.contents = contentsOf(this.layout.regions[0]!.pageSize);
    this.source = opened.source;
    this.port = new NotedPort(opened.port, (event) => this.note(event));
    this.#pager = opened.pager && new RealPager(opened.pager, setting.policy, this);
    this.source.onRead = () => void setImmediate(() => this.#answer());
  }

  static async open(
    subject: RealSubject,
    setting: Setting,
    accessors: AccessorPool,
  ): Promise<RealEnvironment> {
    const layout = layoutOf(subject, setting.pages);
    const direct = new DirectAccesses();
    const source = new ScriptedSource(contentsOf(layout.regions[0]!.pageSize), setting.pages, false);
    const backend = subject.backend();
    if (setting.level === 'port') {
      const attachment = await backend.attach(layout);
      const port = await openPort(attachment.shards[0]!.port);
      return new RealEnvironment(
        subject,
        setting,
        {
          attachment,
          port,
          source,
          pager: undefined,
          serving: undefined,
          direct,
        },
        accessors,
      );
    }
    let attachment: Attachment | undefined;
    const watched: Backend = {
      name: backend.name,
      probe: () => backend.probe(),
      attach: async (asked, states) => (attachment = direct.outlivedBy(await backend.attach(asked, states))),
    };
    const { port1, port2 } = new MessageChannel();
    servePort(port1, source);
    const served: SourceRef = setting.fatalSource
      ? fatalSource(source.length)
      : { port: port2, length: source.length, servedHere: true };
    const options = { backend: watched, regions: layout.toSpecs(), policy: setting.policy, needs: [] };
    const pager = await openPager({ ...options, source: served });
    // A second port, only to look at: whether pages are there.
    const port = await openPort(attachment!.shards[0]!.port);
    return new RealEnvironment(
      subject,
      setting,
      { attachment: attachment!, port, source, pager, serving: port1, direct },
      accessors,
    );
  }

  get sites(): readonly AccessSite[] {
    return this.subject.sites;
  }

  /** Milliseconds since the environment was opened. No two are the same: what ended before something began is told from that. */
  get moment(): number {
    return (this.#moment = Math.max(performance.now() - this.#begin_ms, this.#moment + LEAST_MS));
  }

  get pager(): RealPager {
    if (!this.#pager) throw new TypeError('this environment has a bare port');
    return this.#pager;
  }

  touch({ site = 'vmm-load', page, offset = 0, length = 8, bytes }: TouchRequest): Touch {
    const touch = new RealTouch(++this.#touches, {
      site,
      page,
      offset,
      clock: this,
      write: bytes !== undefined,
      accessor: this.accessors.take(site, this.attachment),
      access: (accessor) => accessor.access({ page, offset, ...(bytes ? { bytes } : { length }) }),
      over: (accessor) => this.accessors.giveBack(site, this.attachment, accessor),
      broken: (error) => {
        this.#broken ??= error instanceof Error ? error : new Error(String(error));
      },
    });
    this.#touching.push(touch.through);
    if (!this.subject.mayFail.includes(site)) this.#opened.direct.add(touch.through);
    return touch;
  }

  discard(pages: PageRange): RealTask {
    const promise = this.#discard(pages);
    this.#tasks.push(promise.catch(() => {}));
    return new RealTask({ operation: 'discard', pages }, this, promise, String);
  }

  unmap(): never {
    throw new TypeError('nothing is unmapped on a real environment');
  }

  breakHandler(): void {
    if (!this.setting.fatalSource)
      throw new TypeError('this environment has a source that lets its reader live');
    this.note({ actor: { kind: 'source' }, kind: 'source-made-fatal' });
  }

  look(page: PageIndex): Uint8Array | undefined {
    if (!this.port.resident(page)) return undefined;
    const bytes = new Uint8Array(this.contents.page_bytes);
    this.attachment.memory!.load(this.layout.gpaOf(page), bytes);
    return bytes;
  }

  watch(check: () => Failure | undefined): void {
    this.#checks.push(check);
  }

  note(event: TraceEvent): void {
    this.trace.add(this.moment, event);
  }

  /** Runs a body to its end. Rejects with {@link PropertyFailure}. */
  async run(body: Body): Promise<void> {
    let looks = 0;
    let since = this.moment;
    for (let next = body.next(); !next.done;) {
      const wait: Wait = next.value;
      this.#answer();
      this.#check();
      if (wait.until()) {
        if (looks > 0) since = this.moment;
        looks = 0;
        next = body.next();
      } else looks++;
      if (this.moment - since > HANG_MS)
        throw new PropertyFailure({ kind: 'timed-out', after_ms: HANG_MS, awaited: awaitedOf(wait) });
      await (looks < EAGER_LOOKS ? eventLoopTurn() : new Promise((resolve) => setTimeout(resolve, 1)));
    }
    this.#check();
  }

  /** Ends everything, accesses that still wait included. */
  async close(): Promise<void> {
    const { pager, attachment, port, serving } = this.#opened;
    this.source.resume();
    if (pager) {
      // No access may be left waiting, or its thread can never be ended.
      if (!this.pager.closed) await pager.close({ missing: 'zero' });
      else await pager.close();
      serving?.close();
    } else this.#letGo();
    await Promise.all(this.#tasks);
    await Promise.all(this.#touching);
    port.close();
    await attachment.close();
  }

  async #discard(pages: PageRange): Promise<void> {
    const site = this.subject.discardSite!;
    const accessor = await this.accessors.take(site, this.attachment);
    await accessor.discard!(pages);
    this.accessors.giveBack(site, this.attachment, accessor);
  }

  #answer(): void {
    while (this.source.answerable > 0) this.source.answer(0);
  }

  #check(): void {
    if (this.#broken !== undefined) throw this.#broken;
    for (const check of this.#checks) {
      const failure = check();
      if (failure) throw new PropertyFailure(failure);
    }
  }

  /** At a bare port the environment is the one to let waiters go. */
  #letGo(): void {
    const rows = new ResolutionBatch(1);
    const zeros = VERB.zeropage;
    this.port.take(new FaultBatch(64), 'none', 0);
    for (let page = 0; page < this.layout.pageCount; page++) {
      rows.clear();
      rows.pushRow(zeros, page, 1);
      this.port.resolve(rows);
    }
    rows.clear();
    rows.pushRow(VERB.wake, 0, this.layout.pageCount);
    this.port.resolve(rows);
  }
}
