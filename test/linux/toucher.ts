import { Worker } from 'node:worker_threads';

interface Reply {
  readonly id: number;
  readonly value: number;
}

/** A worker thread that touches memory on request, so that the test's own thread can serve the fault. */
export class Toucher {
  readonly #worker: Worker;
  readonly #waiting = new Map<number, (value: number) => void>();
  #next = 1;
  thread = 0;

  private constructor() {
    this.#worker = new Worker(new URL('./fixtures/toucher.mjs', import.meta.url));
    this.#worker.on('message', ({ id, value }: Reply) => {
      this.#waiting.get(id)?.(value);
      this.#waiting.delete(id);
    });
  }

  static async start(): Promise<Toucher> {
    const toucher = new Toucher();
    toucher.thread = await new Promise((resolve) => toucher.#waiting.set(0, resolve));
    return toucher;
  }

  #ask(operation: string, request: object): Promise<number> {
    const id = this.#next++;
    const reply = new Promise<number>((resolve) => this.#waiting.set(id, resolve));
    this.#worker.postMessage({ id, operation, ...request });
    return reply;
  }

  load = (address: number): Promise<number> => this.#ask('load', { address });
  store = (address: number, value: number): Promise<number> => this.#ask('store', { address, value });
  kernelLoad = (address: number): Promise<number> => this.#ask('kernelLoad', { address });
  advise = (address: number, length: number, advice: number): Promise<number> =>
    this.#ask('advise', { address, length, advice });
  unmap = (address: number, length: number): Promise<number> => this.#ask('unmap', { address, length });

  /** The thread must not be blocked in a touch any more: nothing can end it then. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate();
  }
}
