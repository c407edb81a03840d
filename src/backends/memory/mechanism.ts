import { type Effect, type FaultKind, type PageIndex, type Verb } from '../../api/index.js';
import { type ModelAccess } from './model-access.js';
import { type ModelKernel } from './model-kernel.js';
import { type Obstacle } from './model-memory.js';

/** One page of a resolution, as a mechanism may carry it out itself. */
export interface PageRequest {
  readonly verb: Verb;
  readonly page: PageIndex;
  /** The contents, for the verbs that bring them. */
  readonly bytes: Uint8Array | undefined;
  readonly protect: boolean;
}

/**
 * What happens when an access meets a page that is not there: the part of a kernel that a prototype of a new
 * one replaces. A mechanism stands before some of the access sites ({@link ModelOptions.sites}); several can
 * stand before one site, and are asked in order. Where none stands, nobody notices, and a missing page comes
 * into being as zeros.
 *
 * To write one, answer three questions.
 *
 * 1. {@link obstacle}: *may this access go on?* Asked before every piece of every access. The ordinary answer
 *   is that of the page table, `kernel.memory.obstacle(access.page, access.write)`; a mechanism with a
 *   presence of its own (a bitmap, a memslot's state) answers from that, but passes on the page table's
 *   errno, if it has one: what is poisoned or unmapped never becomes present.
 * 2. {@link stop}: *what becomes of it if not?* Exactly one of: `kernel.deliver(access, kind)` (it waits and
 *   a fault is delivered), `access.exit(kind)` (its vCPU leaves the kernel; see {@link reenter}),
 *   `access.fail(errno)`, `access.inject()`.
 * 3. {@link installed} and {@link discarded}, for a presence of its own: *what do arriving and departing
 *   pages change?* `installed` is called after the contents are in place, so that setting a bit there
 *   publishes them; several mechanisms may each have to open before an access passes.
 *
 * Everything else (contents, queues, verbs, waking, removal events) the kernel has. All methods are
 * synchronous and take no time: interleaving is between calls, never inside one.
 */
export interface ModelMechanism {
  readonly name: string;
  /** What the backend declares for the sites it stands before; the conformance suite holds it to that. */
  readonly effect: Effect;
  /** Whether a fault that it delivers says which page. */
  readonly address: 'exact' | 'none';
  /**
   * Whether it stands there still when the handler's descriptor is closed, because KVM keeps its state.
   * Default false.
   */
  readonly outlivesHandler?: boolean;
  /** Who reads its notifications: one queue for everybody (the default), or one each vCPU. */
  readonly queue?: 'shared' | 'own';

  /**
   * What bars the access's next piece: a kind of fault, a positive errno to fail it with, or undefined to let
   * it pass.
   */
  obstacle(access: ModelAccess, kernel: ModelKernel): Obstacle;

  /** Stops an access that was barred with a fault. */
  stop(access: ModelAccess, kind: FaultKind, kernel: ModelKernel): void;

  /**
   * What the VMM's vCPU thread does with the exit of an access that it let {@link ModelAccess.exit}: its next
   * step, unless what barred it is over by then (the kernel looks first, since a page that came between the
   * exit and the wait has woken nobody). Default: delivers the fault and waits; woken, the vCPU enters the
   * kernel again.
   */
  reenter?(access: ModelAccess, kernel: ModelKernel): void;

  /**
   * Carries out a resolution of one page in place of the kernel: 0 or a positive errno. Undefined for
   * what is not its own. The verbs it takes must be among {@link ModelOptions.verbs}.
   */
  carryOut?(request: PageRequest, kernel: ModelKernel): number | undefined;

  /** A page has been installed, with its contents. */
  installed?(page: PageIndex, kernel: ModelKernel): void;

  /** A page has been dropped. */
  discarded?(page: PageIndex, kernel: ModelKernel): void;
}
