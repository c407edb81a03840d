/**
 * What a VMM does after KVM_RUN returned.
 *
 * - `reenter`: enter the guest again: the page has arrived, or the vCPU was only stopped for a moment.
 * - `complete-mmio`: the handler has carried out the access in `kvm_run`; enter again to complete the
 *   instruction.
 * - `unhandled`: the exit is the VMM's to handle.
 * - `failed`: the page that the vCPU needs is unavailable ({@link VcpuExitHandler.failure} says why), or the
 *   pager has closed. The vCPU's state is as before the access; entering again requests the page again.
 */
export type VcpuExitResult = 'reenter' | 'complete-mmio' | 'unhandled' | 'failed';

/**
 * Why an exit handler returned `failed`. `stopped`: memslots can no longer be changed; the pager's `stopped`
 * event carries the error.
 */
export type VcpuFailure = 'poisoned' | 'failed' | 'closed' | 'stopped';

/**
 * The exit handler of one vCPU, for a backend whose faults are exits of KVM_RUN. It is opened from a token on
 * the vCPU's own thread, is used by that thread only, and needs no event loop. The thread counts as inside
 * the guest between {@link enter} and {@link onExit}, and every KVM_RUN lies between the two: memslots are
 * changed only while no vCPU is inside.
 *
 * `Run` is what the backend reads of `struct kvm_run`.
 */
export interface VcpuExitHandler<Run> {
  /**
   * Call before each KVM_RUN. Blocks while memslots are being changed. Throws DEADLOCK on the pager's own
   * thread while a call of that thread that discards or freezes pages has not been awaited.
   */
  enter(): void;

  /**
   * Call after each KVM_RUN, with its errno (positive; 0 for success). Blocks the thread until a missing page
   * has arrived. Precondition: `exit_reason` was zeroed before KVM_RUN, which otherwise leaves it stale,
   * unless it was KVM_EXIT_MMIO: from that value KVM on arm64 knows what it has to complete.
   */
  onExit(run: Run, errno: number): VcpuExitResult;

  /** Why the last result was `failed`. */
  readonly failure: VcpuFailure | undefined;

  /**
   * Runs `body`, which may reach guest memory through KVM without a vCPU (a VM or device ioctl,
   * KVM_TRANSLATE), while no memslot is changed. Blocks while memslots are being changed. Not between {@link
   * enter} and {@link onExit}.
   */
  during<T>(body: () => T): T;

  /** Unregisters the vCPU. Idempotent. */
  close(): void;
}
