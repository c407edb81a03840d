import { appendFileSync, writeSync } from 'node:fs';
import { setTimeout as after } from 'node:timers/promises';
import {
  type AccessSite,
  asDemandPagingError,
  type Attachment,
  type Backend,
  fileOffset,
  gpa,
  openPager,
  type Pager,
  type RegionSpec,
} from 'demand-paging';
import { canRead, canWrite, type RealAccessor, type RealResult } from 'demand-paging/conformance';
import { isGuestSite } from '../../../src/guests/kvm-subject.js';
import { type CommandKind, type History, PAGES, type Step } from './history.js';
import { PageOracle, type PageOperation } from './page-oracle.js';
import { type Around, type HistorySubject, isPlain, MemoryFile } from './subjects.js';

/** Where the timeline is written as it grows: what is left of a history that ends the process. */
const LOG = process.env['DP_HISTORY_LOG'];
const PAGE = 4096;
const START = 0x4000_0000;
const REST = 64;
/** More operations that may have taken effect in any order make too many orders. */
const MOST_PENDING = 4;

const NO_THREAD = 0x7fff_ffff;
/** A vCPU is lost to the guest when an access of its fails; so many may wait or be lost. */
const MOST_VCPUS = 12;

/**
 * Four bytes, which no accessor of these sites reads or writes in parts: what was stored, what a page was
 * filled with from beside, or what the source has; and of which history it is, so that what an earlier one
 * has left is known.
 */
const WORD_BYTES = 4;
const KIND = { source: 1, mark: 4, word: 5 } as const;
const HISTORIES = 256;
const wordOf = (kind: keyof typeof KIND, history: number, value: number): number =>
  (KIND[kind] << 28) | (history << 20) | value;
const sourceValue = (page: number, offset: number): number =>
  ((page + 1) << 16) | ((offset / WORD_BYTES) * 2 + 1);

/** A history came out as no order of its steps explains. */
export class HistoryFailure extends Error {
  override readonly name = 'HistoryFailure';
}

interface Pending {
  readonly id: number;
  readonly what: string;
  readonly step: Step | { readonly kind: 'close' | 'stop' };
  readonly pages: readonly number[];
  readonly accessor: Promise<RealAccessor> | undefined;
  readonly site: AccessSite | undefined;
  settled: Promise<void>;
}

export interface PlayOptions {
  readonly around?: Around;
  /** So long nothing that must end takes, however busy the machine is. */
  readonly hang_ms?: number;
  /** Seen sites and commands, for the sum at the end. */
  readonly tally?: Map<string, number>;
}

/**
 * Plays histories on one backend, each on a pager of its own; threads and processes that access memory are
 * used again while memory is mapped at the same place.
 */
export class Player {
  readonly #idle = new Map<string, RealAccessor[]>();
  readonly #started: Promise<RealAccessor>[] = [];
  /** Histories that were begun. */
  played = 0;

  constructor(
    readonly subject: HistorySubject,
    readonly options: PlayOptions = {},
  ) {}

  /** Rejects with {@link HistoryFailure} where the history comes out wrong. */
  async play(history: History): Promise<void> {
    const run = await Run.open(this, history);
    try {
      await run.play();
    } finally {
      await run.dispose();
    }
  }

  take(site: AccessSite, attachment: Attachment): Promise<RealAccessor> {
    const idle = this.#idle.get(placeOf(site, attachment))?.pop();
    if (idle) return Promise.resolve(idle);
    const starting = this.subject.real.accessor(site, attachment);
    this.#started.push(starting);
    return starting;
  }

  giveBack(site: AccessSite, attachment: Attachment, accessor: RealAccessor): void {
    const place = placeOf(site, attachment);
    const idle = this.#idle.get(place);
    if (idle) idle.push(accessor);
    else this.#idle.set(place, [accessor]);
  }

  async stop(): Promise<void> {
    for (const starting of this.#started) await (await starting.catch(() => undefined))?.stop();
  }
}

const placeOf = (site: AccessSite, { layout }: Attachment): string =>
  `${site} ${layout.regions.map(({ hva }) => hva).join(' ')}`;

class Run {
  readonly #oracles: PageOracle[];
  readonly #pending = new Map<number, Pending>();
  /** Writes that have returned and whose event has not come yet. */
  readonly #untold = new Set<Promise<void>>();
  readonly #timeline: string[] = [];
  readonly #written = new Map<number, number>();
  /** The operation that was begun last, by page. */
  readonly #latest = new Map<number, number>();
  /** Protected for sure: nothing else was under way beside the protecting, and nothing that lifts it was begun since. */
  readonly #protected = new Set<number>();
  /** How often something that lifts protection was begun, by page. */
  readonly #lifts = new Map<number, number>();
  readonly #stopped: string[] = [];
  readonly #began = performance.now();
  readonly #hang_ms: number;
  /** Accesses that end with the process where they fail are made no more. */
  #mayFailOnly: boolean;
  #lostVcpus = 0;
  #nextId = 1;
  #nextValue = 1;
  #failure: HistoryFailure | undefined;
  /** The pager is told to close: accesses and commands may end with errors. */
  #closing = false;
  #over = false;

  private constructor(
    private readonly player: Player,
    private readonly history: History,
    private readonly pager: Pager,
    private readonly attachment: Attachment,
    private readonly control: Int32Array,
    private readonly file: MemoryFile | undefined,
    private readonly number: number,
  ) {
    const rules = {
      freeze: pager.supports.freeze,
      comesUnasked: history.faultAroundPages > 1,
    } as const;
    this.#oracles = Array.from({ length: PAGES }, () => new PageOracle(rules));
    this.#hang_ms = player.options.hang_ms ?? 60_000;
    // What a mutant does to memory ends this process where an access cannot fail.
    this.#mayFailOnly = player.options.around !== undefined;
    pager.on('written', ({ first, count }) => {
      for (let page = first; page < first + count; page++)
        this.#written.set(page, (this.#written.get(page) ?? 0) + 1);
    });
    pager.on('stopped', (error) => {
      this.#note(`the pager stopped: ${error.message}`);
      this.#stopped.push(error.code);
    });
    if (LOG !== undefined) {
      pager.on('fault', ({ kind, page, thread }) =>
        this.#note(`  fault: ${kind} ${page} of thread ${thread}`),
      );
      pager.on('installed', ({ first, count }, why) => this.#note(`  installed: ${first}+${count}, ${why}`));
      pager.on('removed', ({ first, count }) => this.#note(`  removed: ${first}+${count}`));
    }
    pager.on('source-failed', (pages, error) =>
      this.#note(`pages ${pages.first}+${pages.count} failed: ${error.message}`),
    );
  }

  static async open(player: Player, history: History): Promise<Run> {
    const { subject, options } = player;
    const file = subject.hasFile ? new MemoryFile(PAGES * PAGE) : undefined;
    const control = new Int32Array(new SharedArrayBuffer(4));
    const number = player.played++ % HISTORIES;
    const stamp = wordOf('source', number, 0);
    const region: RegionSpec = {
      gpa: gpa(START),
      length: BigInt(PAGES * PAGE),
      sourceOffset: fileOffset(0),
      memory: subject.memory,
      pageSize: PAGE,
      ...(file && { file: { fd: file.fd, offset: fileOffset(0) } }),
    };
    let attachment: Attachment | undefined;
    const backend = (options.around ?? ((inner) => inner))(subject.real.backend());
    const seen: Backend = {
      name: backend.name,
      probe: () => backend.probe(),
      attach: async (layout) => (attachment = await backend.attach(layout)),
    };
    const pager = await openPager({
      backend: seen,
      regions: [region],
      needs: [],
      source: {
        module: new URL('./fixtures/source.mjs', import.meta.url).href,
        export: 'open',
        options: { length: PAGES * PAGE, synchronous: history.synchronous, control: control.buffer, stamp },
      },
      policy: { faultAroundPages: history.faultAroundPages, prefetchPages: 2 },
    });
    return new Run(player, history, pager, attachment!, control, file, number);
  }

  async play(): Promise<void> {
    for (const [at, round] of this.history.rounds.entries()) {
      this.#note(`round ${at}`);
      for (const step of round) await this.#begin(step);
      await this.#quiet();
      await this.#observe();
    }
    await this.#end();
  }

  async dispose(): Promise<void> {
    this.#over = true;
    // What still waits is let go by the end of the memory's pager, whatever has gone wrong before.
    await this.pager.thaw([this.#all]).catch(() => {});
    await this.pager
      .close({ missing: 'zero' })
      .catch(() => this.pager.close({ missing: 'leave' }).catch(() => {}));
    const left = [...this.#pending.values()];
    this.#pending.clear(); // no accessor of these is used again
    for (const { accessor, site } of left)
      if (site && this.player.subject.real.killable.includes(site))
        void accessor?.then((each) => each.stop());
    await Promise.race([Promise.all(left.map(({ settled }) => settled)), after(5000)]);
    this.file?.[Symbol.dispose]();
  }

  // ── steps ──

  async #begin(step: Step): Promise<void> {
    this.#check();
    switch (step.kind) {
      case 'read':
      case 'write':
        return this.#access(step);
      case 'kill':
        return this.#kill(step.choice);
      case 'mark':
        return this.#mark(step.pages.first);
      default:
        return this.#command(step.kind, pagesOf(step.pages.first, step.pages.count));
    }
  }

  #access(step: Extract<Step, { kind: 'read' | 'write' }>): void {
    const { page, rest, choice } = step;
    const oracle = this.#oracles[page]!;
    const mayFail = this.#mayFailOnly || this.#mayBePoisoned(page);
    const sites = this.#sites(step.kind, mayFail);
    if (oracle.pending >= MOST_PENDING || sites.length === 0) return;
    const site = sites[choice % sites.length]!;
    const at = rest ? 'rest' : 'word';
    const value = this.#nextValue++;
    const operation: PageOperation = step.kind === 'read' ? { kind: 'read', at } : { kind: 'write', value };
    const accessor = this.player.take(site, this.attachment);
    const told = step.kind === 'write' && this.#protected.delete(page) ? this.#toldOf(page) : undefined;
    const what = `${site} ${step.kind === 'read' ? `reads ${at}` : `writes ${value}`} of page ${page}`;
    const offset = step.kind === 'read' && rest ? REST : 0;
    const bytes = step.kind === 'write' ? bytesOf(wordOf('word', this.number, value)) : undefined;
    const pending = this.#invoke(what, step, [page], operation, accessor, site);
    pending.settled = this.#run(pending, async () => {
      const used = await accessor;
      let result: RealResult;
      try {
        result = await used.access({ page, offset, ...(bytes ? { bytes } : { length: WORD_BYTES }) });
      } catch (error) {
        if (this.#over || !this.#pending.has(pending.id)) return; // it was killed
        throw error;
      }
      if (!this.#pending.has(pending.id)) return; // it was killed, and had gone through
      this.player.giveBack(site, this.attachment, used);
      if (!result.ok && this.#isOfVcpu(site)) this.#lostVcpus++;
      const saw = result.ok ? (bytes ? 'ok' : this.#recognise(result.bytes, page, offset)) : 'error';
      this.#complete(pending, saw, result.ok ? '' : ` errno ${result.errno}`);
      // What was begun since may have lifted the protection before the write.
      if (told === undefined || !result.ok || told.lifts !== this.#toldOf(page).lifts) return;
      const telling = this.#awaitWritten(page, told.events, what).finally(() => this.#untold.delete(telling));
      this.#untold.add(telling);
    });
    this.#count(site);
  }

  #toldOf(page: number): { readonly events: number; readonly lifts: number } {
    return { events: this.#written.get(page) ?? 0, lifts: this.#lifts.get(page) ?? 0 };
  }

  async #awaitWritten(page: number, before: number, what: string): Promise<void> {
    const until = performance.now() + this.#hang_ms;
    while ((this.#written.get(page) ?? 0) <= before) {
      if (this.#over) return;
      if (performance.now() > until)
        return this.#fail(`${what}, which was protected, and no written event came`);
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  #command(kind: Exclude<CommandKind, 'mark'>, pages: readonly number[]): void {
    // What lets others end is never left out.
    if (kind !== 'thaw' && pages.some((page) => this.#oracles[page]!.pending >= MOST_PENDING)) return;
    // An access that could find a page poisoned ends the process where it cannot fail.
    if (kind === 'poison' && this.#pendingSilent(pages)) return;
    if (!['ensure', 'prefetch', 'freeze', 'thaw', 'protect'].includes(kind))
      for (const page of pages) {
        this.#protected.delete(page);
        this.#lifts.set(page, (this.#lifts.get(page) ?? 0) + 1);
      }
    const alone = pages.filter((page) => this.#oracles[page]!.pending === 0);
    const pending = this.#invoke(
      `${kind} ${pages[0]}+${pages.length}`,
      { kind, pages: rangeOf(pages) },
      pages,
      {
        kind,
      },
    );
    pending.settled = this.#run(pending, async () => {
      let code: string | undefined;
      try {
        await this.#carryOut(kind, pages);
      } catch (error) {
        code = asDemandPagingError(error, 'KERNEL', kind).code;
        if (code === 'KERNEL') this.#note(`${kind}: ${String(error)}`);
      }
      if (code === undefined) {
        this.#complete(pending, 'ok');
        if (kind === 'protect' && !this.#failure)
          for (const page of alone) if (this.#latest.get(page) === pending.id) this.#protected.add(page);
      } else this.#rejected(pending, code);
    });
    this.#count(kind);
  }

  #carryOut(kind: Exclude<CommandKind, 'mark'>, pages: readonly number[]): Promise<unknown> {
    const ranges = [this.pager.layout.gpaRangeOf(rangeOf(pages))];
    switch (kind) {
      case 'protect':
        return this.pager.writeProtect(ranges);
      case 'unprotect':
        return this.pager.writeProtect(ranges, false);
      case 'discard-refetch':
        return this.pager.discard(ranges, { then: 'refetch' });
      case 'discard-zero':
        return this.pager.discard(ranges, { then: 'zero' });
      default:
        return this.pager[kind](ranges);
    }
  }

  #rejected(pending: Pending, code: string): void {
    this.#note(`${pending.what}: ${code}`);
    this.#pending.delete(pending.id);
    const of = pending.pages.map((page) => this.#oracles[page]!);
    const ending = this.#stopped.length > 0 || this.#closing || this.#over;
    if (ending) return of.forEach((oracle) => oracle.abandon(pending.id));
    if (code === 'NOT_SUPPORTED' && pending.step.kind === 'freeze') {
      const explained = of.some((oracle) => oracle.maySee(pending.id, 'refused'));
      const kept = of.map((oracle) => oracle.refused(pending.id));
      if (!explained || !kept.every(Boolean)) this.#fail(`${pending.what} was refused: ${code}`);
      return;
    }
    const poisoned = code === 'PAGE_POISONED' && of.some((oracle) => oracle.maySee(pending.id, code));
    of.forEach((oracle) => oracle.abandon(pending.id));
    if (!poisoned) this.#fail(`${pending.what} was refused: ${code}`);
  }

  /**
   * Fills a page of the file from beside and says so. Alone: nothing orders it with accesses but the program.
   */
  async #mark(page: number): Promise<void> {
    await this.#quiet();
    const oracle = this.#oracles[page]!;
    const bare = oracle.every(({ frozen, contents }) => !frozen && contents.kind !== 'poisoned');
    if (!this.file || oracle.pending > 0 || !bare) return;
    this.#protected.delete(page);
    const number = this.#nextValue++;
    const pending = this.#invoke(
      `mark ${page} as ${number}`,
      { kind: 'mark', pages: rangeOf([page]) },
      [page],
      {
        kind: 'mark',
        number,
      },
    );
    const bytes = new Uint32Array(PAGE / WORD_BYTES).fill(wordOf('mark', this.number, number));
    writeSync(this.file.fd, new Uint8Array(bytes.buffer), 0, PAGE, page * PAGE);
    await this.pager.markPresent([this.pager.layout.gpaRangeOf({ first: page, count: 1 })]);
    this.#complete(pending, 'ok');
    this.#count('mark');
  }

  #kill(choice: number): void {
    const { killable } = this.player.subject.real;
    const waiting = [...this.#pending.values()].filter(
      (pending) => pending.site !== undefined && killable.includes(pending.site) && this.#mayWait(pending),
    );
    if (waiting.length === 0) return;
    const pending = waiting[choice % waiting.length]!;
    this.#note(`${pending.what}: its accessor is killed`);
    this.#pending.delete(pending.id);
    for (const page of pending.pages) this.#oracles[page]!.abandon(pending.id);
    if (this.#isOfVcpu(pending.site!)) this.#lostVcpus++;
    void pending.accessor!.then((accessor) => accessor.stop());
    this.#count('kill');
  }

  // ── the end ──

  async #end(): Promise<void> {
    const { ending } = this.history;
    // From here on pages can be poisoned at any moment; what could not fail has ended, or waits for a thaw.
    this.#mayFailOnly = true;
    this.#note(`the end: ${ending}`);
    if (ending === 'resolver-dies') await this.#resolverDies();
    await this.#thawAll();
    await this.#idle('everything to end after a thaw');
    await this.#readAll();
    if (ending !== 'resolver-dies') await this.#writeProtected();
    this.#check();
    if (ending === 'resolver-dies') return;
    await this.#closeOverFrozen(ending);
    this.#check();
  }

  async #thawAll(): Promise<void> {
    if (this.#stopped.length === 0) return this.#command('thaw', pagesOf(0, PAGES));
    // Nothing is frozen where no resolver runs, whatever becomes of the command.
    const pending = this.#invoke('thaw of what has stopped', thawAll, pagesOf(0, PAGES), { kind: 'thaw' });
    await this.pager.thaw([this.#all]).catch(() => {});
    this.#complete(pending, 'ok');
  }

  async #resolverDies(): Promise<void> {
    const missing = this.#oracles.findIndex((oracle) =>
      oracle.every(({ contents, frozen }) => contents.kind === 'missing' && !frozen),
    );
    if (missing < 0) return;
    // Accesses that wait on frozen pages are let go by the crash cleanup, and must be able to fail.
    if ([...this.#pending.values()].some(({ site }) => site && !this.#canFail(site))) return;
    const pending = this.#invoke('the resolver dies', { kind: 'stop' }, pagesOf(0, PAGES), { kind: 'stop' });
    Atomics.store(this.control, 0, 1);
    const range = this.pager.layout.gpaRangeOf({ first: missing, count: 1 });
    const code = await this.#bounded(
      this.pager.ensure([range]).then(
        () => undefined,
        (error: unknown) => asDemandPagingError(error, 'KERNEL', 'ensure').code,
      ),
      'ensure, whose source ends the thread, to end',
    );
    this.#pending.delete(pending.id);
    if (code === undefined) this.#fail('ensure succeeded though its source ended the resolver');
    await this.#until(() => this.#stopped.length > 0, 'the pager to say that it has stopped');
    for (const oracle of this.#oracles)
      if (!oracle.complete(pending.id, () => true)) this.#fail('no order explains the end of the resolver');
    await this.#quiet();
  }

  /** Every page is read, whole enough to tell where its bytes are from. */
  async #readAll(): Promise<void> {
    for (const rest of [false, true]) {
      for (let page = 0; page < PAGES; page++) {
        this.#access({ kind: 'read', page, rest, choice: page });
        if (page % 4 === 3) await this.#quiet();
      }
      await this.#quiet();
    }
  }

  /**
   * Where pages can be protected: each that is written then is told of, those that come only now included.
   */
  async #writeProtected(): Promise<void> {
    if (!this.player.subject.commands.includes('protect')) return;
    this.#command('discard-refetch', pagesOf(PAGES / 2, 2));
    await this.#idle('pages to be discarded');
    this.#command('protect', pagesOf(0, PAGES));
    await this.#idle('pages to be protected');
    for (let page = 0; page < PAGES; page++) {
      this.#access({ kind: 'write', page, rest: false, choice: page });
      if (page % 4 === 3) await this.#idle('writes to end');
    }
  }

  /** Freezes some, lets accesses wait there, and closes over them: each must end. */
  async #closeOverFrozen(ending: Exclude<History['ending'], 'resolver-dies'>): Promise<void> {
    const pages = pagesOf(0, 3);
    this.#command('discard-refetch', pagesOf(0, 4));
    await this.#quiet();
    this.#command('freeze', pages);
    await this.#quiet();
    for (const page of pages) this.#access({ kind: 'read', page, rest: true, choice: page });
    if (ending === 'populate') {
      this.#command('thaw', pages);
      await this.#idle('everything to end after a thaw');
    }
    const missing = ending === 'close-poison' ? 'poison' : ending === 'close-zero' ? 'zero' : 'populate';
    const kind = ending === 'populate' ? 'ensure' : ending;
    const pending = this.#invoke(`close, missing: ${missing}`, { kind: 'close' }, pagesOf(0, PAGES), {
      kind,
    });
    this.#closing = true;
    const code = await this.#bounded(
      this.pager.close({ missing }).then(
        () => undefined,
        (error: unknown) => asDemandPagingError(error, 'KERNEL', 'close').code,
      ),
      'close to end',
    );
    this.#note(`close: ${code ?? 'done'}`);
    this.#pending.delete(pending.id);
    if (code !== undefined && !(ending === 'populate' && code === 'PAGE_POISONED'))
      return this.#fail(`close: ${code}`);
    // What waited must have ended by now; what it saw comes from before the end, or is an error.
    await this.#idle('accesses to end though the pager was closed');
  }

  // ── what is under way ──

  #invoke(
    what: string,
    step: Pending['step'],
    pages: readonly number[],
    operation: PageOperation,
    accessor?: Promise<RealAccessor>,
    site?: AccessSite,
  ): Pending {
    const id = this.#nextId++;
    this.#note(what);
    for (const page of pages) {
      this.#oracles[page]!.invoke(id, operation);
      this.#latest.set(page, id);
    }
    const pending: Pending = { id, what, step, pages, accessor, site, settled: Promise.resolve() };
    this.#pending.set(id, pending);
    return pending;
  }

  async #run(pending: Pending, body: () => Promise<void>): Promise<void> {
    try {
      await body();
    } catch (error) {
      this.#fail(
        `${pending.what}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`,
      );
    } finally {
      this.#pending.delete(pending.id);
    }
  }

  #complete(pending: Pending, saw: string, more = ''): void {
    this.#note(`${pending.what}: ${saw}${more}`);
    this.#pending.delete(pending.id);
    for (const page of pending.pages) {
      const oracle = this.#oracles[page]!;
      const before = oracle.states.join(' or ');
      // What a closed pager's memory is read as is an error whatever it held.
      const fits = (seen: string): boolean => seen === saw || (saw === 'error' && this.#closing);
      if (!oracle.complete(pending.id, fits))
        this.#fail(
          `${pending.what} saw ${saw}${more}; page ${page} is ${before}, and no order of what is under way explains it`,
        );
    }
  }

  /** Waits until nothing is under way. */
  async #idle(what: string): Promise<void> {
    const until = performance.now() + this.#hang_ms;
    while (this.#pending.size + this.#untold.size > 0) {
      this.#check();
      if (this.#pending.size === 0) {
        await Promise.race(this.#untold);
        continue;
      }
      const left = [...this.#pending.values()];
      if (performance.now() > until)
        this.#fail(`waited for ${what}: ${left.map((each) => each.what).join(', ')}`);
      await Promise.race([...left.map(({ settled }) => settled), after(200)]);
    }
    this.#check();
  }

  /** Waits until everything has ended that does not wait for a thaw. */
  async #quiet(): Promise<void> {
    const until = performance.now() + this.#hang_ms;
    for (;;) {
      this.#check();
      const must = [...this.#pending.values()].filter((pending) => !this.#mayWait(pending));
      if (must.length === 0) {
        if (this.#untold.size === 0) return;
        await Promise.race(this.#untold); // ends, with a failure if need be
        continue;
      }
      if (performance.now() > until)
        this.#fail(`nothing came of: ${must.map(({ what }) => what).join(', ')}`);
      await Promise.race([...must.map(({ settled }) => settled), after(200)]);
    }
  }

  /**
   * Whether something may be under way for long: at a page that may be frozen; behind an access that waits at
   * one, as what changes the memory of vCPUs is; or on a vCPU, where memslots cannot be changed meanwhile.
   */
  #mayWait({ step, pages, site }: Pending): boolean {
    switch (step.kind) {
      case 'read':
      case 'write':
      case 'ensure':
        return (
          this.#mayBeFrozen(pages) || (site !== undefined && this.#isOfVcpu(site) && this.#vcpusMayBePaused())
        );
      case 'discard-refetch':
      case 'discard-zero':
      case 'freeze':
      case 'thaw':
        return this.#anAccessMayWait();
      case 'poison':
      case 'protect': // hold once what discards their pages has ended
        return this.#anAccessMayWait() && this.#pendingDiscard(pages);
      default:
        return false;
    }
  }

  #pendingDiscard(pages: readonly number[]): boolean {
    return [...this.#pending.values()].some(
      ({ step, pages: own }) =>
        (step.kind === 'discard-refetch' || step.kind === 'discard-zero') &&
        own.some((page) => pages.includes(page)),
    );
  }

  #mayBeFrozen(pages: readonly number[]): boolean {
    return pages.some((page) => this.#oracles[page]!.some(({ frozen }) => frozen));
  }

  #anAccessMayWait(): boolean {
    return [...this.#pending.values()].some(
      ({ site, step, pages }) => (site !== undefined || step.kind === 'ensure') && this.#mayBeFrozen(pages),
    );
  }

  /**
   * A change of memslots waits for every vCPU to leave KVM_RUN, also one for which KVM itself waits at a
   * frozen page.
   */
  #vcpusMayBePaused(): boolean {
    const changes = ['discard-refetch', 'discard-zero', 'freeze'];
    const all = [...this.#pending.values()];
    if (
      all.some(
        ({ site, pages }) => site === 'kernel-copy' && this.#isOfVcpu(site) && this.#mayBeFrozen(pages),
      )
    )
      return true;
    return this.#anAccessMayWait() && all.some(({ step }) => changes.includes(step.kind));
  }

  /** What the pager says of pages that nothing is under way for. */
  async #observe(): Promise<void> {
    const { states } = this.pager;
    // An accessor goes on before the resolver has noted its page: a command is answered after that.
    const quiet = pagesOf(0, PAGES).filter((page) => this.#oracles[page]!.pending === 0);
    if (this.#stopped.length === 0) await this.pager.nameThread(NO_THREAD, 'vmm').catch(() => {});
    for (const page of quiet) {
      const oracle = this.#oracles[page]!;
      if (this.#stopped.length > 0) continue;
      const before = oracle.states.join(' or ');
      const present = states.isPresent(page);
      const poisoned = states.is('poisoned', page);
      const frozen = states.is('frozen', page);
      const holds = oracle.observe(
        (state) =>
          (state.contents.kind === 'present') === present &&
          (state.contents.kind === 'poisoned') === poisoned &&
          state.frozen === frozen,
      );
      if (!holds)
        this.#fail(
          `the pager has page ${page} as ${present ? 'present' : 'not present'}${poisoned ? ', poisoned' : ''}` +
            `${frozen ? ', frozen' : ''}; it is ${before}`,
        );
    }
  }

  // ── small things ──

  #sites(kind: 'read' | 'write', mayFail: boolean): readonly AccessSite[] {
    const { sites, readOnly = [] } = this.player.subject.real;
    const served = new Set(
      this.attachment.coverage
        .filter(({ effect }) => effect === 'blocks' || effect === 'exits')
        .map(({ site }) => site),
    );
    return sites.filter(
      (site) =>
        isPlain(site) &&
        served.has(site) &&
        (kind === 'read' ? canRead(site) : canWrite(site) && !readOnly.includes(site)) &&
        (!mayFail || this.#canFail(site)) &&
        (!this.#isOfVcpu(site) || this.#vcpusInUse() < MOST_VCPUS),
    );
  }

  /** Whether a vCPU, or KVM for it, makes the accesses: where there are vCPUs. */
  #isOfVcpu(site: AccessSite): boolean {
    return this.player.subject.real.sites.includes('vcpu-load') && isGuestSite(site);
  }

  #vcpusInUse(): number {
    return (
      this.#lostVcpus + [...this.#pending.values()].filter(({ site }) => site && this.#isOfVcpu(site)).length
    );
  }

  #canFail(site: AccessSite): boolean {
    return this.player.subject.real.mayFail.includes(site);
  }

  #mayBePoisoned(page: number): boolean {
    const oracle = this.#oracles[page]!;
    const poisons = [...this.#pending.values()].some(
      ({ step, pages }) => step.kind === 'poison' && pages.includes(page),
    );
    return poisons || oracle.some(({ contents }) => contents.kind === 'poisoned');
  }

  #pendingSilent(pages: readonly number[]): boolean {
    return [...this.#pending.values()].some(
      ({ site, pages: own }) =>
        site !== undefined && !this.#canFail(site) && own.some((page) => pages.includes(page)),
    );
  }

  #recognise(bytes: Uint8Array, page: number, offset: number): string {
    const word = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true);
    if (word === 0) return 'zeros';
    const [kind] = Object.entries(KIND).find(([, number]) => number === word >>> 28) ?? [];
    const history = (word >>> 20) & (HISTORIES - 1);
    const value = word & 0xf_ffff;
    if (history !== this.number || kind === undefined) {
      return `0x${word.toString(16)}, of history ${history}; this is ${this.number}`;
    }
    if (kind === 'word') return `written-${value}`;
    if (kind === 'mark') return `mark-${value}`;
    if (value === sourceValue(page, offset)) return 'source';
    return `0x${word.toString(16)}`;
  }

  get #all(): { readonly start: ReturnType<typeof gpa>; readonly length: bigint } {
    return { start: gpa(START), length: BigInt(PAGES * PAGE) };
  }

  async #until(holds: () => boolean, what: string): Promise<void> {
    const until = performance.now() + this.#hang_ms;
    while (!holds()) {
      if (performance.now() > until) this.#fail(`waited for ${what}`);
      this.#check();
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  async #bounded<T>(promise: Promise<T>, what: string): Promise<T> {
    const stop = new AbortController();
    const late = after(this.#hang_ms, undefined, { signal: stop.signal }).then(
      () => {
        this.#fail(`waited for ${what}`);
        throw this.#failure!;
      },
      () => new Promise<never>(() => {}),
    );
    try {
      return await Promise.race([promise, late]);
    } finally {
      stop.abort();
    }
  }

  #fail(message: string): void {
    if (this.#over) return;
    this.#failure ??= new HistoryFailure(`${message}\n${this.#timeline.slice(-60).join('\n')}`);
  }

  #check(): void {
    if (this.#failure) throw this.#failure;
  }

  #note(what: string): void {
    const line = `${(performance.now() - this.#began).toFixed(1).padStart(9)} ms  ${what}`;
    this.#timeline.push(line);
    if (LOG !== undefined) appendFileSync(LOG, `${line}\n`);
  }

  #count(what: string): void {
    const { tally } = this.player.options;
    tally?.set(what, (tally.get(what) ?? 0) + 1);
  }
}

const thawAll = { kind: 'thaw', pages: { first: 0, count: PAGES } } as const;

const pagesOf = (first: number, count: number): readonly number[] =>
  Array.from({ length: count }, (_, at) => first + at);

const rangeOf = (pages: readonly number[]): { readonly first: number; readonly count: number } => ({
  first: pages[0]!,
  count: pages.length,
});

function bytesOf(word: number): Uint8Array {
  const bytes = new Uint8Array(WORD_BYTES);
  new DataView(bytes.buffer).setUint32(0, word, true);
  return bytes;
}
