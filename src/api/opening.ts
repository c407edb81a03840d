import { DemandPagingError } from './error.js';
import { SourceTime } from './source-time.js';

/**
 * Ends an opening before it has finished: by the caller's signal, or because a source does not open in time.
 * A pause of the process does not count as the source's time.
 */
export class Opening {
  readonly #controller = new AbortController();
  readonly #given: AbortSignal | undefined;
  readonly #timer: NodeJS.Timeout;
  readonly #forward = (): void => this.#controller.abort(this.#given!.reason);

  constructor(timeout_ms: number, given: AbortSignal | undefined) {
    this.#given = given;
    if (given?.aborted) this.#forward();
    else given?.addEventListener('abort', this.#forward, { once: true });
    const begun_ms = performance.now();
    const time = SourceTime.forTimeout(timeout_ms, begun_ms);
    const look = (): void => {
      if (time.look(performance.now()) - begun_ms < timeout_ms) return;
      this.#controller.abort(
        new DemandPagingError('SOURCE_TIMEOUT', `the source was not opened within ${timeout_ms} ms`, {
          hint: 'See the policy’s openTimeout_ms',
        }),
      );
    };
    this.#timer = setInterval(look, Math.min(time.interval_ms, timeout_ms)).unref();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** It is through, or has failed. */
  end(): void {
    clearInterval(this.#timer);
    this.#given?.removeEventListener('abort', this.#forward);
  }
}

/**
 * What a promise resolves with, unless the signal is aborted first: then its reason. A later result is passed
 * to `late`.
 */
export function unlessAborted<T>(
  promise: Promise<T>,
  signal: AbortSignal,
  late: (value: T) => void,
): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = (): void => {
      reject(signal.reason as Error);
      promise.then(late, () => {});
    };
    if (signal.aborted) return abort();
    signal.addEventListener('abort', abort, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort));
  });
}
