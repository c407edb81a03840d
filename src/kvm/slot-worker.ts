import { type MessagePort, receiveMessageOnPort, workerData } from 'node:worker_threads';
import { type PageIndex, type PageRange } from '../api/address.js';
import { asDemandPagingError } from '../api/error.js';
import { duplicate, installKickSignal, KvmVm } from '../linux/index.js';
import { Canary } from './canary.js';
import { dropPages } from './drop-pages.js';
import { DirtyPages } from './dirty-pages.js';
import { ExitBoard } from './exit-board.js';
import { GatePause, type VmHooks, type VmHooksRef } from './pause.js';
import { regionOf, type SlotRegion } from './slot-region.js';
import { closeVacant, makeVacant, SlotTable } from './slot-table.js';
import { READY, type SlotCommand, type SlotReply, type SlotThreadData } from './slot-thread.js';

/** The most pages that go live by one slot: each costs a deletion while the vCPUs stand. */
const LONGEST_RUN = 64;
const PAGE_BYTES = 4096;

/**
 * The one thread that changes memslots. It never resolves a page fault: while any access of KVM waits in
 * one, every memslot operation waits too. It sleeps on the board, without an event loop, and does what vCPUs
 * wait for first.
 */
class SlotThread {
  readonly #data: SlotThreadData;
  readonly #board: ExitBoard;
  readonly #vm: KvmVm;
  readonly #table: SlotTable;
  readonly #hooks: VmHooks;
  readonly #canary: Canary | undefined;
  #ended = false;

  constructor(data: SlotThreadData, hooks: VmHooks) {
    const { board, vm, runBytes, regions, slots, strategy, canary, dirty } = data;
    this.#data = data;
    this.#board = new ExitBoard(board);
    this.#hooks = hooks;
    this.#vm = new KvmVm(duplicate(vm), runBytes);
    const ownSlots = canary ? { first: slots.first, count: slots.count - 2 } : slots;
    this.#table = new SlotTable(
      this.#vm,
      regions,
      ownSlots,
      strategy === 'memslot-hole',
      dirty && new DirtyPages(dirty, 0),
    );
    this.#canary = canary && new Canary(this.#vm, canary);
  }

  start(): void {
    const bytes = this.#data.regions.reduce((sum, { count, pageSize }) => sum + count * pageSize, 0);
    this.#hooks.quiesce(() => this.#withVacant(bytes, (file) => this.#table.start(file)));
  }

  /** Turns until told to end. */
  run(control: MessagePort): void {
    while (!this.#ended) {
      const seen = this.#board.work;
      const worked = this.#serveWaiting();
      for (let got = receiveMessageOnPort(control); got; got = receiveMessageOnPort(control)) {
        const command = got.message as SlotCommand;
        const error = errorOf(() => this.#execute(command));
        control.postMessage({ id: command.id, error } satisfies SlotReply);
      }
      if (!worked && !this.#ended) this.#board.waitForWork(seen);
    }
  }

  /** Undoes what a failed start left. */
  giveUp(): void {
    this.#table.clear();
    this.#release();
  }

  /** Shows the guest the runs of filled pages that vCPUs wait for. Whether there were any. */
  #serveWaiting(): boolean {
    const runs: PageRange[] = [];
    for (let vcpu = 0; vcpu < this.#board.vcpus; vcpu++) {
      const page = this.#board.waitsFor(vcpu);
      if (page < 0 || runs.some(({ first, count }) => page >= first && page < first + count)) continue;
      if (this.#board.has('live', page)) this.#board.answer(page, 1);
      else if (this.#board.has('filled', page)) runs.push(this.#runAround(page));
    }
    if (runs.length === 0) return false;
    this.#goLive(runs);
    return true;
  }

  #goLive(runs: readonly PageRange[]): void {
    const before = this.#table.changed;
    this.#hooks.quiesce(() => {
      for (const { first, count } of runs) this.#table.goLive(first, count);
    });
    this.#board.countSwap(this.#table.changed - before);
    for (const { first, count } of runs) {
      this.#board.mark('live', first, count, true); // before the answers: a gate that comes later looks here
      this.#board.answer(first, count);
    }
  }

  /** The filled pages around one that are not live: they come for the price of a deletion each. */
  #runAround(page: PageIndex): PageRange {
    const region = regionOf(this.#data.regions, page)!;
    const wanted = (at: PageIndex): boolean => this.#board.has('filled', at) && !this.#board.has('live', at);
    let first = page;
    let end = page + 1;
    while (end < region.page + region.count && end - page < LONGEST_RUN && wanted(end)) end++;
    while (first > region.page && end - first < LONGEST_RUN && wanted(first - 1)) first--;
    return { first, count: end - first };
  }

  #execute(command: SlotCommand): void {
    switch (command.kind) {
      case 'drop':
        return this.#drop(command.pages);
      case 'publish':
        return this.#publish(command.pages);
      case 'gather':
        return this.#table.gatherDirty();
      case 'end':
        return this.#end(command.keep);
    }
  }

  #drop(pages: PageRange): void {
    for (const [index, region] of this.#data.regions.entries()) {
      const first = Math.max(pages.first, region.page);
      const count = Math.min(pages.first + pages.count, region.page + region.count) - first;
      if (count > 0) this.#dropIn(region, index, first, count);
    }
  }

  #dropIn(region: SlotRegion, index: number, first: PageIndex, count: number): void {
    const bytes = this.#data.regions.reduce((sum, each) => sum + each.count * each.pageSize, 0);
    const before = this.#table.changed;
    this.#hooks.quiesce(() => {
      this.#withVacant(bytes, (file) => this.#table.vacate(first, count, file));
      for (const bitmap of ['live', 'filled', 'poisoned'] as const)
        this.#board.mark(bitmap, first, count, false);
      dropPages(region, this.#data.drops[index]!, first, count);
    });
    this.#board.countSwap(this.#table.changed - before);
  }

  /** Makes a guest_memfd, has slots bound to it, vacates them and looks whether they are. */
  #withVacant(bytes: number, bind: (file: number) => void): void {
    if (this.#data.strategy === 'memslot-hole') return bind(-1);
    const file = makeVacant(this.#vm, bytes + PAGE_BYTES);
    try {
      bind(file);
      this.#canary?.setBait(file, bytes);
    } finally {
      closeVacant(file);
    }
    this.#canary?.check();
  }

  #end(keep: boolean): void {
    this.#ended = true;
    if (keep) this.#publish({ first: 0, count: this.#board.pages });
    else this.#hooks.quiesce(() => this.#table.clear());
    this.#board.close();
    this.#release();
  }

  #publish(pages: PageRange): void {
    const runs = this.#filledRuns(pages);
    if (runs.length > 0) this.#goLive(runs);
  }

  /** The runs of filled pages that are not live, of those asked for; a run may reach further. */
  #filledRuns({ first, count }: PageRange): PageRange[] {
    const runs: PageRange[] = [];
    for (const region of this.#data.regions) {
      const end = Math.min(region.page + region.count, first + count);
      for (let page = Math.max(region.page, first); page < end; page++) {
        const last = runs.at(-1);
        if (last && page < last.first + last.count) continue;
        if (this.#board.has('filled', page) && !this.#board.has('live', page))
          runs.push(this.#runAround(page));
      }
    }
    return runs;
  }

  #release(): void {
    this.#canary?.close();
    if (this.#hooks instanceof GatePause) this.#hooks.close();
    this.#vm.close();
  }
}

function errorOf(body: () => void): SlotReply['error'] {
  try {
    body();
    return undefined;
  } catch (thrown) {
    return asDemandPagingError(thrown, 'KERNEL', 'the slot thread failed').toPlain();
  }
}

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
      : new GatePause(new ExitBoard(data.board), data.runBytes);
    thread = new SlotThread(data, hooks);
    thread.start();
  } catch (thrown) {
    thread?.giveUp();
    return ready(asDemandPagingError(thrown, 'KERNEL', 'the slot thread failed to start').toPlain());
  } finally {
    data.control.unref();
  }
  ready(undefined);
  thread.run(data.control);
}

void main(workerData as SlotThreadData);
