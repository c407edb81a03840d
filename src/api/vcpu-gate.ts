/**
 * What a VMM does after a KVM_RUN returned.
 *
 * - `again`: enter the guest again: the page has come, or the vCPU was only stopped for a moment.
 * - `complete-mmio`: the gate has carried out the access in `kvm_run`; enter again to finish the instruction.
 * - `not-mine`: the exit is the VMM's own business.
 * - `fatal`: the vCPU met a page that cannot be had ({@link VcpuGate.failure} says why), or the pager has
 *   closed. The vCPU's state is as before the access; entering again asks for the page again.
 */
export type GateVerdict = 'again' | 'complete-mmio' | 'not-mine' | 'fatal';

/** Why a gate answered `fatal`. `stopped`: what shows pages to vCPUs has failed; the pager's `stopped` event says how. */
export type GateFailure = 'poisoned' | 'failed' | 'closed' | 'stopped';

/**
 * The way of one vCPU through a backend whose faults are exits of KVM_RUN: opened on the vCPU's own
 * thread from a token, used by that thread only, without an event loop. The thread is inside the guest
 * between {@link enter} and {@link onExit}, and every KVM_RUN lies between the two: that is how slots
 * are changed only while no vCPU looks.
 *
 * `Run` is what the backend reads of `struct kvm_run`.
 */
export interface VcpuGate<Run> {
  /**
   * Call before each KVM_RUN. Blocks while slots are being changed. Throws DEADLOCK on the pager's own thread, while it has
   * pages removed, withdrawn or frozen and has not awaited that.
   */
  enter(): void;

  /**
   * Call after each KVM_RUN, with its errno (positive; 0 for success). Blocks the thread until a missing
   * page is there. Precondition: `exit_reason` was zeroed before KVM_RUN, which leaves it stale otherwise, unless it
   * was KVM_EXIT_MMIO, by which KVM on arm64 knows what it has to complete.
   */
  onExit(run: Run, errno: number): GateVerdict;

  /** Why the last verdict was `fatal`. */
  readonly failure: GateFailure | undefined;

  /**
   * Runs what may reach guest memory through KVM without a vCPU (a VM or device ioctl, KVM_TRANSLATE) while
   * no slot is changed. Blocks while slots are being changed. Not between {@link enter} and {@link onExit}.
   */
  during<T>(body: () => T): T;

  /** Gives the vCPU's place up. Idempotent. */
  close(): void;
}
