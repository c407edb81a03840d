import { type Worker } from 'node:worker_threads';
import { type Effect } from '../api/access.js';
import { DemandPagingError } from '../api/error.js';
import { startThread } from '../api/package-entry.js';
import { type Accessor, type AccessRequest, type Walk, type WalkReport } from '../accessors/index.js';
import { type VcpuExitHandlerToken } from '../kvm/index.js';
import { type GuestMachine, type GuestVcpu } from './guest-machine.js';
import {
  type GuestAccess,
  type GuestResult,
  type GuestSite,
  type VcpuCommand,
  type VcpuEvent,
  type VcpuPlace,
  type VcpuThreadData,
} from './messages.js';

/** How each site is exercised, in a few words. */
export const GUEST_HOW: Readonly<Record<GuestSite, string>> = {
  'vcpu-load': 'a loop of loads at CPL 3',
  'vcpu-store': 'a loop of stores at CPL 3',
  'vcpu-atomic': 'a loop of lock xadd, or of xchg, at CPL 3',
  'vcpu-fetch': 'a jump into the page at CPL 3, then a load of what was asked for',
  'vcpu-walk': 'a load through an entry of the page as a page table, then a load of what was asked for',
  'kernel-copy': 'string I/O, for which KVM itself reads or writes guest memory',
};
export const GUEST_SITES = Object.keys(GUEST_HOW) as readonly GuestSite[];

/** Where a vCPU accessor finds its guest at the moment of an access. */
export interface GuestPlace {
  readonly machine: GuestMachine;
  exitHandlerToken(vcpu: number): VcpuExitHandlerToken | undefined;
  /** The effect that the backend declares for a site. */
  effectOf(site: GuestSite): Effect;
  /**
   * Before an access that does not fault: maps present pages, as a VMM does before a KVM ioctl that accesses
   * guest memory.
   */
  publish(page: number): Promise<void>;
  readonly kernel: GuestAccess['kernel'];
}

interface Waiting {
  readonly resolve: (value: never) => void;
  readonly reject: (error: Error) => void;
}

/**
 * A thread that runs a vCPU for each access on command. It uses any of the guest's vCPUs that is free.
 */
export class VcpuAccessor implements Accessor {
  readonly how: string;
  readonly #worker: Worker;
  readonly #interrupted = new SharedArrayBuffer(4);
  readonly #waiting = new Map<number, Waiting>();
  readonly #ended: Promise<void>;
  readonly #placeOf: () => GuestPlace;
  #nextId = 1;
  #thread = 0;
  #gone: Error | undefined;

  private constructor(
    readonly site: GuestSite,
    placeOf: () => GuestPlace,
  ) {
    this.how = GUEST_HOW[site];
    this.#placeOf = placeOf;
    const workerData: VcpuThreadData = { interrupted: this.#interrupted };
    this.#worker = startThread('guests/vcpu-worker', { workerData });
    let cause: unknown;
    this.#worker.on('error', (error) => (cause = error));
    this.#ended = new Promise((resolve) =>
      this.#worker.on('exit', () => {
        this.#end(cause);
        resolve();
      }),
    );
  }

  /** Resolves when the thread is ready. `placeOf` is called before each access. Errors: HANDLER_DIED. */
  static async start(site: GuestSite, placeOf: () => GuestPlace): Promise<VcpuAccessor> {
    const accessor = new VcpuAccessor(site, placeOf);
    await new Promise<void>((resolve, reject) => {
      accessor.#waiting.set(0, { resolve, reject });
      accessor.#worker.on('message', (event: VcpuEvent) => accessor.#hear(event));
    });
    return accessor;
  }

  get thread(): number {
    return this.#thread;
  }

  /** Errors besides those of {@link Accessor.access}: an `errno` of ESRCH where the pager has closed. */
  access(request: AccessRequest): Promise<GuestResult> {
    return this.accessFrom(this.site, request);
  }

  /** As {@link access}, from another site, on the same thread: for consecutive accesses. */
  async accessFrom(
    site: GuestSite,
    { page, offset = 0, bytes, length }: AccessRequest,
  ): Promise<GuestResult> {
    const place = this.#placeOf();
    const effect = place.effectOf(site);
    const span = bytes?.length ?? length ?? place.machine.layout.regionOf(page).pageSize - offset;
    const access: GuestAccess = {
      page,
      offset,
      length: span,
      bytes,
      kernel: place.kernel,
      injects: effect === 'injects',
    };
    try {
      if (effect === 'errors' || effect === 'injects') await place.publish(page);
      return await this.#withVcpu(
        place,
        (vcpu) => this.#ask<GuestResult>((id) => ({ kind: 'access', id, site, vcpu, access })),
        (result) => !result.ok,
      );
    } catch (error) {
      if (!(error instanceof DemandPagingError) || error.code !== 'CLOSED') throw error;
      return { ok: false, errno: 3, injected: false, why: error.message };
    }
  }

  walk(walk: Walk): Promise<WalkReport> {
    if (this.site === 'vcpu-fetch' || this.site === 'vcpu-walk')
      throw new TypeError(`${this.site}: not every page can be executed or serve as a page table`);
    Atomics.store(new Int32Array(this.#interrupted), 0, 0);
    return this.#withVcpu(
      this.#placeOf(),
      (vcpu) => this.#ask<WalkReport>((id) => ({ kind: 'walk', id, site: this.site, vcpu, walk })),
      ({ failures }) => failures > 0,
    );
  }

  interrupt(): void {
    Atomics.store(new Int32Array(this.#interrupted), 0, 1);
  }

  /**
   * A vCPU that waits in its exit handler is terminated there; one that waits inside the kernel is waited
   * for.
   */
  async stop(): Promise<void> {
    this.interrupt();
    const waits = this.#waiting.size > 0 && this.#placeOf().effectOf(this.site) === 'exits';
    if (waits) void this.#worker.terminate();
    else if (!this.#gone) this.#worker.postMessage({ kind: 'stop' } satisfies VcpuCommand);
    await this.#ended;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  async #withVcpu<T>(
    place: GuestPlace,
    body: (vcpu: VcpuPlace) => Promise<T>,
    isSpent: (result: T) => boolean,
  ): Promise<T> {
    const { machine } = place;
    const taken: GuestVcpu = machine.take();
    let how: 'whole' | 'spent' | 'lost' = 'spent';
    try {
      const result = await body({
        vcpu: taken.vcpu.token,
        index: taken.index,
        vcpus: machine.vcpus,
        regions: machine.layout.toSpecs(),
        own: machine.own,
        exitHandlerToken: place.exitHandlerToken(taken.index),
      });
      if (!isSpent(result)) how = 'whole';
      return result;
    } catch (error) {
      if (error === this.#gone) how = 'lost';
      throw error;
    } finally {
      machine.giveBack(taken, how);
    }
  }

  #ask<Answer>(command: (id: number) => VcpuCommand): Promise<Answer> {
    if (this.#gone) return Promise.reject(this.#gone);
    const id = this.#nextId++;
    return new Promise<Answer>((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#worker.postMessage(command(id));
    });
  }

  #hear(event: VcpuEvent): void {
    const id = event.kind === 'ready' ? 0 : event.id;
    const waiting = this.#waiting.get(id);
    this.#waiting.delete(id);
    switch (event.kind) {
      case 'ready':
        this.#thread = event.thread;
        return waiting?.resolve(undefined as never);
      case 'accessed':
        return waiting?.resolve(event.result as never);
      case 'walked':
        return waiting?.resolve(event.report as never);
      case 'failed':
        return waiting?.reject(new Error(event.message));
    }
  }

  #end(cause: unknown): void {
    const why = cause === undefined ? '' : `: ${cause instanceof Error ? cause.message : String(cause)}`;
    this.#gone = new DemandPagingError('HANDLER_DIED', `the ${this.site} accessor ended${why}`);
    for (const { reject } of this.#waiting.values()) reject(this.#gone);
    this.#waiting.clear();
  }
}
