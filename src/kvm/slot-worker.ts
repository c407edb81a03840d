import { receiveMessageOnPort, workerData } from 'node:worker_threads';
import { type PageIndex, type PageRange } from '../api/address.js';
import { asDemandPagingError, type DemandPagingError, type PlainError } from '../api/error.js';
import { EventFd, installKickSignal, KvmVm } from '../linux/index.js';
import { Canary } from './canary.js';
import { dropPages, hidePages } from './drop-pages.js';
import { DirtyPages } from './dirty-pages.js';
import { ExitBoard } from './exit-board.js';
import { HiddenRuns } from './hidden-runs.js';
import { MappingRoom } from './mapping-limit.js';
import { GatePause, type VmHooks, type VmHooksRef } from './pause.js';
import { RunLength } from './run-length.js';
import { chunksAround, regionOf, type SlotRegion } from './slot-region.js';
import { type ShownPages, SlotTable } from './slot-table.js';
import { UserfaultSlots } from './userfault-slots.js';
import { vacating } from './vacating.js';
import { FAILED, READY, type SlotCommand, type SlotReply, type SlotThreadData } from './slot-thread.js';

/**
 * The one thread that changes memslots. It never resolves a page fault: while any access of KVM waits in
 * one, every memslot operation waits too. It sleeps on the board, without an event loop, and does what vCPUs
 * wait for first.
 */
class SlotThread {
  readonly #data: SlotThreadData;
  readonly #board: ExitBoard;
  readonly #vm: KvmVm;
  readonly #table: ShownPages;
  readonly #hooks: VmHooks;
  readonly #canary: Canary | undefined;
  readonly #run = new RunLength();
  readonly #tell: (reply: SlotReply) => void;
  #failed: DemandPagingError | undefined;
  #room: MappingRoom | undefined;
  #roomAsked = 0;
  readonly #doorbell: EventFd;
  #ended = false;
  /** The vCPUs stand because somebody has asked for it. */
  #standing = false;

  constructor(data: SlotThreadData, hooks: VmHooks) {
    const { board, vm, run_bytes, canary } = data;
    this.#data = data;
    this.#doorbell = EventFd.borrow(data.doorbell);
    this.#tell = (reply) => data.control.postMessage(reply);
    this.#board = new ExitBoard(board);
    this.#hooks = hooks;
    this.#vm = KvmVm.borrow(vm, run_bytes);
    this.#table = tableOf(data, this.#vm);
    this.#canary = canary && new Canary(this.#vm, canary); // the last that can fail
    const isFile = data.drops.some(({ kind }) => kind === 'guest-memfd');
    if (isFile) this.#room = new MappingRoom(data.regions, (...run) => this.#hideRun(...run));
  }

  /** Hides pages from the VMM where pages that are asked for find no mapping. Takes part in no change of slots. */
  makeRoom(): void {
    const asked = this.#board.roomAsks;
    if (!this.#room || asked === this.#roomAsked) return;
    this.#roomAsked = asked;
    const needed = this.#board.takeRoomNeeded();
    let runs = 0;
    try {
      runs = this.#room.make(needed);
    } catch {
      // Nothing could be hidden: for the page that waits it is as if there was nothing, and slots go on.
    } finally {
      this.#board.answerRoom(runs, needed);
      this.#board.kick();
      this.#doorbell.ring();
    }
  }

  #hideRun(region: SlotRegion, start: number, length: number): void {
    const drop = this.#data.drops[this.#data.regions.indexOf(region)]!;
    const first = region.page + (start - region.address) / region.pageSize;
    hidePages(region, drop, { first, count: length / region.pageSize });
  }

  /** Does what takes a few mappings for a moment, which are held for it. */
  #withRoom(body: () => void): void {
    if (this.#room) this.#room.using(body);
    else body();
  }

  start(): void {
    const all = { first: 0, count: this.#board.pages };
    this.#hooks.quiesce(() =>
      this.#vacating((file, again) => (again ? this.#table.bindAgain(all, file) : this.#table.start(file))),
    );
  }

  /** Turns until told to end. */
  run(): void {
    while (!this.#ended) {
      const seen = this.#board.work;
      this.makeRoom();
      const worked = this.#serve();
      this.#obey();
      if (!worked && !this.#ended) this.#board.waitForWork(seen);
    }
  }

  /** Does what it is told; no further than to where the vCPUs go again, because the next may have them stand anew. */
  #obey(): void {
    const { control } = this.#data;
    const stood = this.#standing;
    for (let got = receiveMessageOnPort(control); got; got = receiveMessageOnPort(control)) {
      const command = got.message as SlotCommand;
      if (command.kind === 'stand') this.#stand(command.id);
      else this.#tell({ id: command.id, error: errorOf(() => this.#execute(command)) });
      // What comes after the end finds no thread, as if it had been sent later.
      if (this.#ended || (stood && !this.#standing)) return;
    }
  }

  /**
   * Has the vCPUs stand until told to let them go. Whoever asked makes pages wait meanwhile that a vCPU could
   * otherwise be inside KVM_RUN for; nobody is now.
   */
  #stand(id: number): void {
    try {
      if (this.#failed) throw this.#failed;
      this.#quiesce(() => {
        this.#standing = true;
        this.#tell({ id, error: undefined });
        for (let seen = this.#board.work; this.#standing; seen = this.#board.work) {
          this.makeRoom();
          this.#obey();
          if (this.#standing) this.#board.waitForWork(seen);
        }
      });
    } catch (thrown) {
      this.#standing = false;
      this.#tell({ id, error: plainOf(thrown) });
    }
  }

  /** Undoes what a failed start left. */
  giveUp(): void {
    try {
      this.#table.clear();
    } catch {
      // What KVM refuses to delete is the VMM's to see in its VM; why the start failed is what is told.
    } finally {
      this.#release();
    }
  }

  /** After a failure the thread stays, to take the slots away in the end. */
  #serve(): boolean {
    if (this.#failed) return false;
    try {
      return this.#serveWaiting();
    } catch (thrown) {
      this.#fail(thrown);
      return false;
    }
  }

  /** Shows the guest the runs of filled pages that vCPUs wait for. Whether there were any. */
  #serveWaiting(): boolean {
    const runs = this.#hiddenRuns();
    for (let vcpu = 0; vcpu < this.#board.vcpus; vcpu++) {
      const page = this.#board.waitsFor(vcpu);
      if (page < 0 || runs.has(page)) continue;
      if (this.#board.has('live', page)) this.#board.answer(page, 1);
      else if (this.#board.ready(this.#chunkOf(page))) {
        this.#run.asked(vcpu, page);
        const run = runs.add(page, this.#run.length);
        this.#run.shown(vcpu, run.first + run.count);
      }
    }
    if (runs.all.length === 0) return false;
    this.#goLive(runs.all);
    return true;
  }

  #goLive(runs: readonly PageRange[]): void {
    this.#change(() => {
      for (const run of runs) this.#table.goLive(run);
    });
    for (const { first, count } of runs) {
      this.#board.mark('live', first, count, true); // before the answers: a gate that comes later looks here
      this.#board.answer(first, count);
    }
  }

  /**
   * Changes slots while the vCPUs stand. A change that breaks off (KVM refuses a slot, a vacated slot is not
   * vacated) leaves nothing to go on with: no vCPU waits any more, and none may find anything where pages are missing.
   */
  #change(body: () => void): void {
    const before = this.#table.changed;
    this.#quiesce(() => {
      try {
        body();
      } catch (thrown) {
        this.#fail(thrown);
        throw thrown;
      }
    });
    this.#board.countSwap(this.#table.changed - before);
  }

  /** Runs `body` while the vCPUs stand. Where they cannot be made to, slots cannot be changed any more. */
  #quiesce(body: () => void): void {
    if (this.#standing) return body();
    const begun = performance.now();
    try {
      this.#hooks.quiesce(body);
    } catch (thrown) {
      this.#fail(thrown);
      throw thrown;
    } finally {
      this.#board.countStanding((performance.now() - begun) * 1e6);
    }
  }

  #fail(thrown: unknown): void {
    if (this.#failed) return;
    this.#failed = asDemandPagingError(thrown, 'KERNEL', 'slots cannot be changed any more');
    this.#board.stop();
    this.#tell({ id: FAILED, error: this.#failed.toPlain() });
    this.#table.clearMissing();
  }

  #hiddenRuns(): HiddenRuns {
    return new HiddenRuns(this.#data.regions, (chunk) => this.#isHidden(chunk));
  }

  #chunkOf(page: PageIndex): PageRange {
    return chunksAround(regionOf(this.#data.regions, page)!, { first: page, count: 1 });
  }

  /** Complete, and not shown yet. */
  #isHidden(chunk: PageRange): boolean {
    return !this.#board.has('live', chunk.first) && this.#board.ready(chunk);
  }

  #execute(command: Exclude<SlotCommand, { kind: 'stand' }>): void {
    if (this.#failed && command.kind !== 'end' && command.kind !== 'go') throw this.#failed;
    switch (command.kind) {
      case 'go':
        this.#standing = false;
        return;
      case 'drop':
        return this.#each(command.pages, (region, index, pages) => this.#drop(region, index, pages));
      case 'hide':
        return this.#each(command.pages, (region, index, pages) => this.#hide(region, index, pages));
      case 'publish':
        return this.#publish(command.pages);
      case 'gather':
        return this.#table.gatherDirty();
      case 'end':
        return this.#end(command.keep);
    }
  }

  /** The part of a range in each region. */
  #each(pages: PageRange, act: (region: SlotRegion, index: number, part: PageRange) => void): void {
    for (const [index, region] of this.#data.regions.entries()) {
      const first = Math.max(pages.first, region.page);
      const count = Math.min(pages.first + pages.count, region.page + region.count) - first;
      if (count > 0) act(region, index, { first, count });
    }
  }

  #drop(region: SlotRegion, index: number, pages: PageRange): void {
    this.#takeAway(pages, () => {
      const poisoned = this.#board.any('poisoned', pages);
      for (const bitmap of ['filled', 'poisoned', 'frozen'] as const)
        this.#board.mark(bitmap, pages.first, pages.count, false);
      this.#withRoom(() => dropPages(region, this.#data.drops[index]!, pages, poisoned));
    });
  }

  #hide(region: SlotRegion, index: number, pages: PageRange): void {
    this.#takeAway(pages, () => this.#withRoom(() => hidePages(region, this.#data.drops[index]!, pages)));
  }

  /** Takes the chunks of these pages out of the guest's sight, and then their memory away. */
  #takeAway(pages: PageRange, then: () => void): void {
    this.#change(() => {
      this.#vacating((file, again) => {
        if (again) return this.#table.bindAgain(pages, file);
        const { first, count } = this.#table.vacate(pages, file);
        this.#board.mark('live', first, count, false);
      });
      then();
    });
  }

  /** Calls `bind` with what slots of missing pages are made of. See {@link vacating}. */
  #vacating(bind: (file: number, again: boolean) => void): void {
    if (this.#data.strategy !== 'vacated-slot') return bind(-1, false);
    const bytes = this.#data.regions.reduce((sum, { count, pageSize }) => sum + count * pageSize, 0);
    vacating(this.#vm, bytes, this.#canary, bind);
  }

  #end(keep: boolean): void {
    this.#ended = true;
    try {
      this.#board.mark('frozen', 0, this.#board.pages, false); // nobody is left to thaw
      if (!keep) this.#clear();
      else if (!this.#failed) this.#publish({ first: 0, count: this.#board.pages });
    } finally {
      this.#board.close();
      this.#release();
    }
  }

  #clear(): void {
    try {
      this.#hooks.quiesce(() => {
        // While the vCPUs stand: who comes back finds no slot, and must find that pages come no more.
        this.#board.close();
        this.#table.clear();
      });
    } finally {
      this.#table.clear(); // a hook that fails is no reason to leave slots over memory that goes
    }
  }

  #publish(pages: PageRange): void {
    const runs = this.#filledRuns(pages);
    if (runs.length > 0) this.#goLive(runs);
  }

  /** The runs of complete chunks that are not live, of those asked for; a run may reach further. */
  #filledRuns({ first, count }: PageRange): readonly PageRange[] {
    const runs = this.#hiddenRuns();
    for (const region of this.#data.regions) {
      const end = Math.min(region.page + region.count, first + count);
      for (let page = Math.max(region.page, first); page < end;) {
        const chunk = this.#chunkOf(page);
        page = chunk.first + chunk.count;
        if (runs.has(chunk.first) || !this.#isHidden(chunk)) continue;
        const run = runs.add(chunk.first, this.#run.length);
        page = Math.max(page, run.first + run.count);
      }
    }
    return runs.all;
  }

  #release(): void {
    this.#canary?.close();
    this.#room?.close();
    this.#doorbell.close();
    if (this.#hooks instanceof GatePause) this.#hooks.close();
    this.#vm.close();
  }
}

function tableOf(
  { regions, slots, strategy, canary, dirty, userfault }: SlotThreadData,
  vm: KvmVm,
): ShownPages {
  if (userfault) return new UserfaultSlots(vm, regions, slots.first, userfault.flag, userfault.bitmaps);
  const own = canary ? { first: slots.first, count: slots.count - 2 } : slots;
  const log = dirty && new DirtyPages(dirty, 0);
  return new SlotTable(vm, regions, own, strategy === 'memslot-hole', log);
}

function errorOf(body: () => void): SlotReply['error'] {
  try {
    body();
    return undefined;
  } catch (thrown) {
    return plainOf(thrown);
  }
}

const plainOf = (thrown: unknown): PlainError =>
  asDemandPagingError(thrown, 'KERNEL', 'the slot thread failed').toPlain();

async function hooksOf(ref: VmHooksRef): Promise<VmHooks> {
  const make = ((await import(ref.module)) as Record<string, unknown>)[ref.export];
  if (typeof make !== 'function') throw new TypeError(`${ref.module} exports no function '${ref.export}'`);
  return (make as (options: unknown) => VmHooks)(ref.options);
}

async function main(data: SlotThreadData): Promise<void> {
  const ready = (error: SlotReply['error']): void =>
    data.control.postMessage({ id: READY, error } satisfies SlotReply);
  let thread: SlotThread | undefined;
  try {
    installKickSignal();
    const hooks = data.hooks
      ? await hooksOf(data.hooks)
      : // A vCPU may wait for a page that finds no mapping before others are hidden.
        new GatePause(new ExitBoard(data.board), data.run_bytes, () => thread?.makeRoom());
    thread = new SlotThread(data, hooks);
    thread.start();
  } catch (thrown) {
    thread?.giveUp();
    return ready(asDemandPagingError(thrown, 'KERNEL', 'the slot thread failed to start').toPlain());
  } finally {
    data.control.unref();
  }
  ready(undefined);
  thread.run();
}

void main(workerData as SlotThreadData);
