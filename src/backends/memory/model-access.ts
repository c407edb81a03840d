import { type Accessor, type AccessSite, type FaultKind, type PageIndex } from '../../api/index.js';
import { ERRNO } from './errno.js';
import { type ModelKernel } from './model-kernel.js';
import { type Stepper } from './stepper.js';

/**
 * Where an access stands. `running`: its next step touches memory. `blocked`: it waits to be woken. `exited`:
 * its vCPU left KVM_RUN with the fault; its next step is its exit handler's, in user space. The rest are
 * ends: `errored` (see {@link ModelAccess.errno}), `injected` (the guest sees an abort), `killed` (its thread
 * got a fatal signal), `done`.
 */
export type AccessState = 'running' | 'blocked' | 'exited' | 'errored' | 'injected' | 'killed' | 'done';

export interface AccessRequest {
  readonly site: AccessSite;
  readonly page: PageIndex;
  /** Offset into the page. Default 0. */
  readonly offset?: number;
  /** Bytes to read. Ignored where `bytes` are given. Default 8. */
  readonly length?: number;
  /** What to write; absent for a read. */
  readonly bytes?: Uint8Array;
  /** Most bytes touched in one step, which is atomic. Default: up to the end of the page. */
  readonly piece_bytes?: number;
  /** vcpu_id, for the vCPU's own sites. Default 0. */
  readonly vcpu?: number;
}

const COPIED_BY_KERNEL: ReadonlySet<AccessSite> = new Set([
  'kernel-copy',
  'kernel-cached-pfn',
  'vmm-syscall',
  'external-vm-readv',
  'external-vhost',
]);

/** An access to the model's memory, from one of the sites, a piece a step. */
export class ModelAccess implements Stepper {
  readonly actor: Accessor;
  readonly site: AccessSite;
  readonly write: boolean;
  readonly thread: number;
  readonly vcpu: number | undefined;
  /** What was read so far, or what is written. */
  readonly bytes: Uint8Array;
  /** The page that the next piece touches. */
  page: PageIndex;
  /** Positive, once `errored`. */
  errno: number | undefined;
  /** Why it waits or exited. */
  kind: FaultKind | undefined;
  onRunnable: (() => void) | undefined;
  /** How often its vCPU has left the kernel with it. */
  exits = 0;
  readonly #kernel: ModelKernel;
  readonly #piece_bytes: number;
  #state: AccessState = 'running';
  #offset: number;
  #done = 0;
  /** `kernel-cached-pfn`: the frame looked up once and used from then on, whatever becomes of the page. */
  #pinned: Uint8Array | undefined;

  /** @internal Made by {@link ModelKernel.access}. */
  constructor(kernel: ModelKernel, thread: number, request: AccessRequest) {
    const { site, page, offset = 0, length = 8, bytes, piece_bytes = Infinity, vcpu = 0 } = request;
    this.#kernel = kernel;
    this.thread = thread;
    this.site = site;
    this.page = page;
    this.#offset = offset;
    this.write = bytes !== undefined;
    this.bytes = bytes ?? new Uint8Array(length);
    this.#piece_bytes = piece_bytes;
    this.vcpu = site.startsWith('vcpu-') ? vcpu : undefined;
    this.actor = { kind: 'accessor', site, number: thread };
  }

  get state(): AccessState {
    return this.#state;
  }

  get runnable(): boolean {
    return this.#state === 'running' || this.#state === 'exited';
  }

  get ended(): boolean {
    return !this.runnable && this.#state !== 'blocked';
  }

  step(): void {
    if (this.#state === 'exited') return this.#kernel.reenter(this);
    if (this.#state !== 'running') return;
    const frame = this.#pinned ?? this.#kernel.reach(this);
    if (frame === undefined) return; // stopped; the mechanism has said how it goes on
    // Where the kernel copies on somebody's behalf, poison is EFAULT; elsewhere it is a signal or an exit of
    // its own.
    if (typeof frame === 'number')
      return this.fail(frame === ERRNO.EHWPOISON && COPIED_BY_KERNEL.has(this.site) ? ERRNO.EFAULT : frame);
    this.#transfer(frame);
  }

  // ── for mechanisms ──

  /** It waits until it is woken, and then tries the same piece again. */
  block(kind: FaultKind): void {
    this.kind = kind;
    this.#enter('blocked');
  }

  /** Its vCPU leaves the kernel with the fault. */
  exit(kind: FaultKind): void {
    this.kind = kind;
    this.exits++;
    this.#enter('exited');
  }

  /** Its vCPU, having exited, enters the kernel again. */
  enterAgain(): void {
    if (this.#state === 'exited') this.#enter('running');
  }

  /** The guest sees an abort. */
  inject(): void {
    this.#enter('injected');
  }

  /** It fails at once, with a positive errno. */
  fail(errno: number): void {
    this.errno = errno;
    this.#enter('errored');
  }

  /** What it waited for may have changed: it tries again. */
  wake(): void {
    if (this.#state !== 'blocked') return;
    this.#enter('running');
    this.onRunnable?.();
  }

  /** Its thread gets a fatal signal: it stops waiting, unserved. Any time. */
  kill(): void {
    if (this.ended) return;
    this.#kernel.forget(this);
    this.#enter('killed');
    this.onRunnable?.();
  }

  #enter(state: AccessState): void {
    this.#state = state;
    const { actor, page, errno } = this;
    this.#kernel.trace?.({ actor, kind: 'access-state', state, page, errno });
  }

  #transfer(frame: Uint8Array): void {
    const piece = Math.min(this.#piece_bytes, frame.length - this.#offset, this.bytes.length - this.#done);
    if (this.write) frame.set(this.bytes.subarray(this.#done, this.#done + piece), this.#offset);
    else this.bytes.set(frame.subarray(this.#offset, this.#offset + piece), this.#done);
    this.#done += piece;
    this.#offset += piece;
    if (this.site === 'kernel-cached-pfn') this.#pinned = frame;
    if (this.#done === this.bytes.length) this.#enter('done');
    else if (this.#offset === frame.length) {
      this.page++;
      this.#offset = 0;
      this.#pinned = undefined;
    }
  }
}
