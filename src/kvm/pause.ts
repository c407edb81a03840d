import { duplicate, kickThread, KvmVcpu, threadLives } from '../linux/index.js';
import { type SharedVcpuState, type VcpuRegistration } from './shared-vcpu-state.js';

/**
 * Period of kicks to a vCPU that has not left KVM_RUN: one between its check of the pause and KVM_RUN is
 * lost.
 */
const KICK_EVERY_MS = 2;

/** How a VMM pauses its own vCPUs for memslot updates, when they do not use our exit handlers. */
export interface VmHooks {
  /**
   * Runs `body` while every vCPU is outside KVM_RUN and no VM or device ioctl is in flight, until `body`
   * returns. Called on the slot thread. A vCPU that waits in a page fault leaves KVM_RUN by itself once the
   * page has arrived: the resolver does not wait for the slot thread. `body` may wait for the thread that
   * opened the pager (a discard takes several messages), which therefore must not wait for `quiesce` to
   * return.
   */
  quiesce<T>(body: () => T): T;
}

/** A module that exports a function from options to hooks: the slot thread imports it. */
export interface VmHooksRef {
  readonly module: string;
  readonly export: string;
  readonly options: unknown;
}

/**
 * The pause of vCPUs that use our exit handlers. It is announced in the shared vCPU state; then every vCPU
 * that is inside KVM_RUN is forced out: immediate_exit makes its next entry return at once, and a signal ends
 * the present one.
 */
export class VcpuPause implements VmHooks {
  readonly #shared: SharedVcpuState;
  readonly #run_bytes: number;
  /** This thread's own mappings of the vCPUs' kvm_run, by vCPU, with the generation of the registration. */
  readonly #pages = new Map<number, { readonly generation: number; readonly page: KvmVcpu }>();

  readonly #meanwhile: () => void;

  /** `meanwhile`: called repeatedly while the slot thread waits for a vCPU. */
  constructor(shared: SharedVcpuState, run_bytes: number, meanwhile: () => void = () => {}) {
    this.#shared = shared;
    this.#run_bytes = run_bytes;
    this.#meanwhile = meanwhile;
  }

  quiesce<T>(body: () => T): T {
    this.#shared.beginPause();
    try {
      for (let vcpu = 0; vcpu < this.#shared.vcpus; vcpu++) this.#forceOut(vcpu);
      return body();
    } finally {
      this.#shared.endPause();
    }
  }

  close(): void {
    for (const { page } of this.#pages.values()) page.close();
    this.#pages.clear();
  }

  #forceOut(vcpu: number): void {
    while (this.#shared.isInside(vcpu)) {
      // A vCPU that has left KVM_RUN by itself may unregister and close its descriptor: not while it is used
      // here.
      const registration = this.#shared.withRegistration(vcpu, (each) => this.#requestExit(vcpu, each));
      if (registration && !this.#kick(vcpu, registration)) this.#shared.abandon(vcpu, registration);
      else if (this.#shared.waitOutside(vcpu, KICK_EVERY_MS)) return;
      this.#meanwhile();
    }
  }

  #requestExit(vcpu: number, { descriptor, generation }: VcpuRegistration): void {
    if (descriptor === undefined) return;
    let mapped = this.#pages.get(vcpu);
    if (mapped?.generation !== generation) {
      mapped?.page.close();
      mapped = { generation, page: KvmVcpu.adopt(duplicate(descriptor), this.#run_bytes) };
      this.#pages.set(vcpu, mapped);
    }
    mapped.page.run.immediateExit = true;
  }

  /**
   * Signals the thread of a vCPU that is inside; false: the thread has ended. A vCPU that waits for a page
   * leaves KVM_RUN after the page has arrived, and an ioctl returns when it is done: of these only the
   * thread's existence is checked.
   */
  #kick(vcpu: number, { descriptor, thread }: VcpuRegistration): boolean {
    const exitsByItself = descriptor === undefined || this.#shared.isBlocked(vcpu);
    return exitsByItself ? threadLives(thread) : kickThread(thread);
  }
}
