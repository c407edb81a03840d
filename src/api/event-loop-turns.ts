/** How long a driver may run on before others have their turn. */
const TURN_MS = 10;

/** Resolves after whatever else is ready has run. */
export const eventLoopTurn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

/**
 * For an asynchronous driver of a {@link Program}: a program may walk for long over pages that are all there,
 * and would hold up the event loop. It yields at least every some thousand steps (a {@link HintAsk} without
 * ranges says nothing else), so a driver that asks {@link due} at each ask, and awaits {@link take} then,
 * lets timers, sockets and an AbortSignal have their turn every 10 ms.
 */
export class EventLoopTurns {
  #since = performance.now();

  /** `turn`: resolves after a turn of the event loop. */
  constructor(
    private readonly signal?: AbortSignal,
    private readonly turn = eventLoopTurn,
  ) {}

  due(): boolean {
    return performance.now() - this.#since >= TURN_MS;
  }

  /** Resolves after whatever else was ready has run. Rejects with the signal's reason if it was aborted. */
  async take(): Promise<void> {
    await this.turn();
    this.signal?.throwIfAborted();
    this.#since = performance.now();
  }
}
