import { type Gpa, WINDOW_BYTES } from '../api/index.js';

const WINDOW = BigInt(WINDOW_BYTES);

/** The window that contains an address. */
export const windowOf = (gpa: bigint): Gpa => (gpa - (gpa % WINDOW)) as Gpa;

interface Patch {
  readonly bytes: Uint8Array;
  readonly written: Uint8Array;
}

/** What a dry run wrote, kept apart from the guest's memory. */
export class PlanOverlay {
  readonly #patches = new Map<Gpa, Patch>();

  write(gpa: Gpa, bytes: Uint8Array): void {
    const page = windowOf(gpa);
    let patch = this.#patches.get(page);
    if (patch === undefined) {
      patch = { bytes: new Uint8Array(WINDOW_BYTES), written: new Uint8Array(WINDOW_BYTES) };
      this.#patches.set(page, patch);
    }
    const offset = Number(gpa - page);
    patch.bytes.set(bytes, offset);
    patch.written.fill(1, offset, offset + bytes.length);
  }

  /** A copy of `content` with what was written to that page. */
  apply(page: Gpa, content: Uint8Array): Uint8Array {
    const copy = content.slice();
    const patch = this.#patches.get(page);
    if (patch !== undefined) {
      for (let at = 0; at < WINDOW_BYTES; at++) if (patch.written[at] === 1) copy[at] = patch.bytes[at]!;
    }
    return copy;
  }
}
