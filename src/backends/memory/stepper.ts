/**
 * Something that goes on in the model, one step at a time, when somebody outside says so: an access, a
 * thread that discards memory. It holds no promise and no timer, so whoever calls {@link step} owns
 * every interleaving.
 */
export interface Stepper {
  /** Whether a step would get anywhere now. False while it waits, and once it has ended. */
  readonly runnable: boolean;
  readonly ended: boolean;
  /** Goes one step. Does nothing unless {@link runnable}. */
  step(): void;
  /** Called when the stepper, having waited, becomes runnable. */
  onRunnable: (() => void) | undefined;
}

/** Steps until the end, waiting for others without blocking the thread: for use without a scheduler. */
export async function settle(stepper: Stepper): Promise<void> {
  while (!stepper.ended) {
    if (stepper.runnable) stepper.step();
    else await new Promise<void>((resolve) => (stepper.onRunnable = resolve));
  }
}
