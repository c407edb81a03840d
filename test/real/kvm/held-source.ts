import { MessageChannel } from 'node:worker_threads';
import { type PortSourceRef, type SourceRequest } from '../../../src/api/index.js';
import { PAGE } from './rig.js';

/** A source that gives every page at once, but keeps back those it is told to. */
export class HeldSource {
  readonly ref: PortSourceRef;
  readonly #bytes: Uint8Array;
  readonly #port;
  readonly #held = new Map<
    number,
    { readonly asked: Promise<void>; arrived: () => void; give: () => void }
  >();

  constructor(image: SharedArrayBuffer) {
    const { port1, port2 } = new MessageChannel();
    this.#bytes = new Uint8Array(image);
    this.#port = port1;
    this.ref = { port: port2, length: image.byteLength, servedHere: true };
    port1.on('message', ({ id, offset, length }: SourceRequest) => {
      const give = (): void => port1.postMessage({ id, bytes: this.#bytes.slice(offset, offset + length) });
      const held = this.#held.get(offset / PAGE);
      if (!held) return give();
      held.give = give;
      held.arrived();
    });
  }

  /** Keeps a page back; resolves when it is asked for. */
  hold(page: number): Promise<void> {
    let arrived = (): void => {};
    const asked = new Promise<void>((resolve) => (arrived = resolve));
    this.#held.set(page, { asked, arrived, give: () => {} });
    return asked;
  }

  release(page: number): void {
    const held = this.#held.get(page)!;
    this.#held.delete(page);
    held.give();
  }

  close(): void {
    this.#port.close();
  }
}
