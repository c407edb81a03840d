import { type PageIndex } from '../api/address.js';
import { addPage } from './checksum.js';
import { type WalkReport } from './walk.js';

/** Records a walk, access by access. */
export class WalkTally {
  readonly #started = performance.now();
  #pages = 0;
  #bytes = 0;
  #checksum = 0;
  #first_ms = 0;
  #slowest_ms = 0;
  #failures = 0;
  #firstFailure: WalkReport['firstFailure'];

  /** Accesses so far. */
  get accesses(): number {
    return this.#pages + this.#failures;
  }

  /** Records a page that was read whole; `took_ms`: the time its access took. */
  saw(page: PageIndex, bytes: Uint8Array, took_ms: number): void {
    this.#time(took_ms);
    this.#pages++;
    this.#bytes += bytes.length;
    this.#checksum = addPage(this.#checksum, page, bytes);
  }

  failed(page: PageIndex, errno: number, took_ms: number): void {
    this.#time(took_ms);
    this.#failures++;
    this.#firstFailure ??= { page, errno };
  }

  report(interrupted: boolean): WalkReport {
    return {
      pages: this.#pages,
      bytes: this.#bytes,
      checksum: this.#checksum,
      firstAccess_ms: this.#first_ms,
      elapsed_ms: performance.now() - this.#started,
      slowest_ms: this.#slowest_ms,
      interrupted,
      failures: this.#failures,
      firstFailure: this.#firstFailure,
    };
  }

  #time(took_ms: number): void {
    if (this.accesses === 0) this.#first_ms = performance.now() - this.#started;
    this.#slowest_ms = Math.max(this.#slowest_ms, took_ms);
  }
}
