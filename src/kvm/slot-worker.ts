import { receiveMessageOnPort, workerData } from 'node:worker_threads';
import { type PageIndex, type PageRange } from '../api/address.js';
import { asDemandPagingError, type DemandPagingError, type PlainError } from '../api/error.js';
import { EventFd, installKickSignal, KvmVm } from '../linux/index.js';
import { SlotVerification } from './slot-verification.js';
import { discardPages, unmapPages } from './discard-pages.js';
import { DirtyPages } from './dirty-pages.js';
import { SharedVcpuState } from './shared-vcpu-state.js';
import { PendingRuns } from './pending-runs.js';
import { MappingRoom } from './mapping-limit.js';
import { VcpuPause, type VmHooks, type VmHooksRef } from './pause.js';
import { RunLength } from './run-length.js';
import { chunksAround, regionOf, type SlotRegion } from './slot-region.js';
import { type GuestMapping, SlotTable } from './slot-table.js';
import { UserfaultSlots } from './userfault-slots.js';
import { vacateSlots } from './vacate-slots.js';
import { FAILED, READY, type SlotCommand, type SlotReply, type SlotThreadData } from './slot-thread.js';

/**
 * The one thread that changes memslots. It never resolves a page fault: while any access of KVM waits in a
 * page fault, every memslot operation waits as well. It sleeps on a word of the shared vCPU state, without an
 * event loop, and serves vCPUs before commands.
 */
class SlotThread {
  readonly #data: SlotThreadData;
  readonly #shared: SharedVcpuState;
  readonly #vm: KvmVm;
  readonly #table: GuestMapping;
  readonly #hooks: VmHooks;
  readonly #verification: SlotVerification | undefined;
  readonly #run = new RunLength();
  readonly #reply: (reply: SlotReply) => void;
  #failed: DemandPagingError | undefined;
  #room: MappingRoom | undefined;
  #roomAsked = 0;
  readonly #doorbell: EventFd;
  #ended = false;
  /** The vCPUs are paused by a `pause` command, until `resume`. */
  #paused = false;

  constructor(data: SlotThreadData, hooks: VmHooks) {
    const { shared, vm, run_bytes, verification } = data;
    this.#data = data;
    this.#doorbell = EventFd.borrow(data.doorbell);
    this.#reply = (reply) => data.control.postMessage(reply);
    this.#shared = new SharedVcpuState(shared);
    this.#hooks = hooks;
    this.#vm = KvmVm.borrow(vm, run_bytes);
    this.#table = tableOf(data, this.#vm);
    // The last step that can fail.
    this.#verification = verification && new SlotVerification(this.#vm, verification);
    const isFile = data.discardMethods.some(({ kind }) => kind === 'guest-memfd');
    if (isFile) this.#room = new MappingRoom(data.regions, (...run) => this.#unmapRun(...run));
  }

  /** Unmaps pages from the VMM's address space when the resolver needs mappings. Changes no memslot. */
  makeRoom(): void {
    const asked = this.#shared.roomAsks;
    if (!this.#room || asked === this.#roomAsked) return;
    this.#roomAsked = asked;
    const needed = this.#shared.takeRoomNeeded();
    let runs = 0;
    try {
      runs = this.#room.make(needed);
    } catch {
      // Nothing could be unmapped. The waiting page is answered as if nothing was left; memslots can still be
      // changed.
    } finally {
      this.#shared.answerRoom(runs, needed);
      this.#shared.kick();
      this.#doorbell.ring();
    }
  }

  #unmapRun(region: SlotRegion, start: number, length: number): void {
    const drop = this.#data.discardMethods[this.#data.regions.indexOf(region)]!;
    const first = region.page + (start - region.address) / region.pageSize;
    unmapPages(region, drop, { first, count: length / region.pageSize });
  }

  /** Runs a body that briefly needs a few mappings, which are reserved for it. */
  #withRoom(body: () => void): void {
    if (this.#room) this.#room.using(body);
    else body();
  }

  start(): void {
    const all = { first: 0, count: this.#shared.pages };
    this.#hooks.quiesce(() =>
      this.#bindVacated((file, again) =>
        again ? this.#table.bindAgain(all, file) : this.#table.start(file),
      ),
    );
  }

  /** Runs until the `end` command. */
  run(): void {
    while (!this.#ended) {
      const seen = this.#shared.work;
      this.makeRoom();
      const worked = this.#serve();
      this.#handleCommands();
      if (!worked && !this.#ended) this.#shared.waitForWork(seen);
    }
  }

  /**
   * Executes the queued commands, up to the one that ends a pause: the next may begin another, which must not
   * nest in this one.
   */
  #handleCommands(): void {
    const { control } = this.#data;
    const wasPaused = this.#paused;
    for (let got = receiveMessageOnPort(control); got; got = receiveMessageOnPort(control)) {
      const command = got.message as SlotCommand;
      if (command.kind === 'pause') this.#pause(command.id);
      else this.#reply({ id: command.id, error: errorOf(() => this.#execute(command)) });
      // Commands behind `end` are not read, as if they had been sent after the thread ended.
      if (this.#ended || (wasPaused && !this.#paused)) return;
    }
  }

  /**
   * Pauses the vCPUs until `resume`. The control thread holds pages back meanwhile; a vCPU inside KVM_RUN
   * could wait for one of them, and this thread for the vCPU, so every vCPU is outside first.
   */
  #pause(id: number): void {
    try {
      if (this.#failed) throw this.#failed;
      this.#quiesce(() => {
        this.#paused = true;
        this.#reply({ id, error: undefined });
        for (let seen = this.#shared.work; this.#paused; seen = this.#shared.work) {
          this.makeRoom();
          this.#handleCommands();
          if (this.#paused) this.#shared.waitForWork(seen);
        }
      });
    } catch (thrown) {
      this.#paused = false;
      this.#reply({ id, error: plainOf(thrown) });
    }
  }

  /** Deletes the memslots that a failed start has left. */
  abort(): void {
    try {
      this.#table.clear();
    } catch {
      // The error that is reported is the one that made the start fail.
    } finally {
      this.#release();
    }
  }

  /** After a failure the thread stays, to delete the memslots on `end`. */
  #serve(): boolean {
    if (this.#failed) return false;
    try {
      return this.#serveWaiting();
    } catch (thrown) {
      this.#fail(thrown);
      return false;
    }
  }

  /** Maps the runs of populated pages that vCPUs wait for. Returns whether there were any. */
  #serveWaiting(): boolean {
    const runs = this.#pendingRuns();
    for (let vcpu = 0; vcpu < this.#shared.vcpus; vcpu++) {
      const page = this.#shared.waitsFor(vcpu);
      if (page < 0 || runs.has(page)) continue;
      if (this.#shared.has('mapped', page)) this.#shared.completeFaults(page, 1);
      else if (this.#shared.mappable(this.#chunkOf(page))) {
        this.#run.faulted(vcpu, page);
        const run = runs.add(page, this.#run.length);
        this.#run.mapped(vcpu, run.first + run.count);
      }
    }
    if (runs.all.length === 0) return false;
    this.#map(runs.all);
    return true;
  }

  #map(runs: readonly PageRange[]): void {
    this.#change(() => {
      for (const run of runs) this.#table.map(run);
    });
    for (const { first, count } of runs) {
      // Before the completions: a vCPU that faults later checks this.
      this.#shared.mark('mapped', first, count, true);
      this.#shared.completeFaults(first, count);
    }
  }

  /**
   * Changes memslots while the vCPUs are paused. An update that fails half-way (KVM refuses a memslot, the
   * verification finds a slot that is not vacated) is final: all faults are completed, and the slots of
   * missing pages are deleted, so that no vCPU reads zeros there.
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
    this.#shared.countUpdate(this.#table.changed - before);
  }

  /** Runs `body` while the vCPUs are paused. If they cannot be paused, memslots can no longer be changed. */
  #quiesce(body: () => void): void {
    if (this.#paused) return body();
    const begun = performance.now();
    try {
      this.#hooks.quiesce(body);
    } catch (thrown) {
      this.#fail(thrown);
      throw thrown;
    } finally {
      this.#shared.countPause((performance.now() - begun) * 1e6);
    }
  }

  #fail(thrown: unknown): void {
    if (this.#failed) return;
    this.#failed = asDemandPagingError(thrown, 'KERNEL', 'memslots can no longer be changed');
    this.#shared.stop();
    this.#reply({ id: FAILED, error: this.#failed.toPlain() });
    this.#table.clearMissing();
  }

  #pendingRuns(): PendingRuns {
    return new PendingRuns(this.#data.regions, (chunk) => this.#isPending(chunk));
  }

  #chunkOf(page: PageIndex): PageRange {
    return chunksAround(regionOf(this.#data.regions, page)!, { first: page, count: 1 });
  }

  /** Complete, and not mapped for the guest yet. */
  #isPending(chunk: PageRange): boolean {
    return !this.#shared.has('mapped', chunk.first) && this.#shared.mappable(chunk);
  }

  #execute(command: Exclude<SlotCommand, { kind: 'pause' }>): void {
    if (this.#failed && command.kind !== 'end' && command.kind !== 'resume') throw this.#failed;
    switch (command.kind) {
      case 'resume':
        this.#paused = false;
        return;
      case 'discard':
        return this.#each(command.pages, (region, index, pages) => this.#discard(region, index, pages));
      case 'freeze':
        return this.#each(command.pages, (region, index, pages) => this.#unmap(region, index, pages));
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

  #discard(region: SlotRegion, index: number, pages: PageRange): void {
    this.#vacate(pages, () => {
      const poisoned = this.#shared.any('poisoned', pages);
      for (const bitmap of ['populated', 'poisoned', 'frozen'] as const)
        this.#shared.mark(bitmap, pages.first, pages.count, false);
      this.#withRoom(() => discardPages(region, this.#data.discardMethods[index]!, pages, poisoned));
    });
  }

  #unmap(region: SlotRegion, index: number, pages: PageRange): void {
    this.#vacate(pages, () =>
      this.#withRoom(() => unmapPages(region, this.#data.discardMethods[index]!, pages)),
    );
  }

  /** Unmaps the chunks of these pages from the guest, then runs `then`, in one pause. */
  #vacate(pages: PageRange, then: () => void): void {
    this.#change(() => {
      this.#bindVacated((file, again) => {
        if (again) return this.#table.bindAgain(pages, file);
        const { first, count } = this.#table.vacate(pages, file);
        this.#shared.mark('mapped', first, count, false);
      });
      then();
    });
  }

  /** Calls `bind` with the file of the slots of missing pages; -1 for holes. See {@link vacateSlots}. */
  #bindVacated(bind: (file: number, again: boolean) => void): void {
    if (this.#data.strategy !== 'vacated-slot') return bind(-1, false);
    const bytes = this.#data.regions.reduce((sum, { count, pageSize }) => sum + count * pageSize, 0);
    vacateSlots(this.#vm, bytes, this.#verification, bind);
  }

  #end(keep: boolean): void {
    this.#ended = true;
    try {
      this.#shared.mark('frozen', 0, this.#shared.pages, false); // no thread is left to thaw them
      if (!keep) this.#clear();
      else if (!this.#failed) this.#publish({ first: 0, count: this.#shared.pages });
    } finally {
      this.#shared.close();
      this.#release();
    }
  }

  #clear(): void {
    try {
      this.#hooks.quiesce(() => {
        // In the pause: a vCPU that enters afterwards finds no memslot, and must find the state closed.
        this.#shared.close();
        this.#table.clear();
      });
    } finally {
      this.#table.clear(); // even if a hook has failed: the memory under the memslots is about to go
    }
  }

  #publish(pages: PageRange): void {
    const runs = this.#populatedRuns(pages);
    if (runs.length > 0) this.#map(runs);
  }

  /** The runs of complete, unmapped chunks in these pages; a run may reach further. */
  #populatedRuns({ first, count }: PageRange): readonly PageRange[] {
    const runs = this.#pendingRuns();
    for (const region of this.#data.regions) {
      const end = Math.min(region.page + region.count, first + count);
      for (let page = Math.max(region.page, first); page < end;) {
        const chunk = this.#chunkOf(page);
        page = chunk.first + chunk.count;
        if (runs.has(chunk.first) || !this.#isPending(chunk)) continue;
        const run = runs.add(chunk.first, this.#run.length);
        page = Math.max(page, run.first + run.count);
      }
    }
    return runs.all;
  }

  #release(): void {
    this.#verification?.close();
    this.#room?.close();
    this.#doorbell.close();
    if (this.#hooks instanceof VcpuPause) this.#hooks.close();
    this.#vm.close();
  }
}

function tableOf(
  { regions, slots, strategy, verification, dirty, userfault }: SlotThreadData,
  vm: KvmVm,
): GuestMapping {
  if (userfault) return new UserfaultSlots(vm, regions, slots.first, userfault.flag, userfault.bitmaps);
  const own = verification ? { first: slots.first, count: slots.count - 2 } : slots;
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
      : // A vCPU may wait for a page that cannot be mapped before others are unmapped.
        new VcpuPause(new SharedVcpuState(data.shared), data.run_bytes, () => thread?.makeRoom());
    thread = new SlotThread(data, hooks);
    thread.start();
  } catch (thrown) {
    thread?.abort();
    return ready(asDemandPagingError(thrown, 'KERNEL', 'the slot thread failed to start').toPlain());
  } finally {
    data.control.unref();
  }
  ready(undefined);
  thread.run();
}

void main(workerData as SlotThreadData);
