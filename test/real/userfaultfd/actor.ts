import { Worker } from 'node:worker_threads';

interface Reply {
  readonly id: number;
  readonly value: number;
}

/** A thread that touches and changes memory on request, so that the test's own thread can serve the fault. */
export class Actor {
  readonly #worker = new Worker(new URL('./fixtures/actor.mjs', import.meta.url));
  readonly #waiting = new Map<number, (value: number) => void>();
  #next = 1;
  thread = 0;

  private constructor() {
    this.#worker.on('message', ({ id, value }: Reply) => {
      this.#waiting.get(id)?.(value);
      this.#waiting.delete(id);
    });
  }

  static async start(): Promise<Actor> {
    const actor = new Actor();
    actor.thread = await new Promise((resolve) => actor.#waiting.set(0, resolve));
    return actor;
  }

  #ask(operation: string, request: object): Promise<number> {
    const id = this.#next++;
    const reply = new Promise<number>((resolve) => this.#waiting.set(id, resolve));
    this.#worker.postMessage({ id, operation, ...request });
    return reply;
  }

  load = (address: number): Promise<number> => this.#ask('load', { address });
  walk = (address: number, stride: number, count: number): Promise<number> =>
    this.#ask('walk', { address, stride, count });
  kernelLoad = (address: number): Promise<number> => this.#ask('kernelLoad', { address });
  kernelStore = (address: number, value: number): Promise<number> =>
    this.#ask('kernelStore', { address, value });
  /** A function of the C library; its result, or -errno. */
  call = (name: string, ...args: number[]): Promise<number> => this.#ask('call', { name, args });
  store = (address: number, value: number): Promise<number> => this.call('memset', address, value, 1);

  /** Runs a program as a child process; its exit status. */
  spawn = (program: string): Promise<number> => this.#ask('spawn', { program });

  /** The thread must not be blocked in a touch any more: nothing can end it then. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#worker.terminate();
  }
}
