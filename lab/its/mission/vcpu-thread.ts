import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { type VcpuExitHandlerToken } from 'demand-paging/backends/composite';

export interface VcpuTask {
  /** The thread takes it over. */
  readonly descriptor: number;
  readonly run_bytes: number;
  /** Undefined where missing pages stop the thread inside KVM_RUN. */
  readonly token: VcpuExitHandlerToken | undefined;
}

/** What became of a vCPU. */
export interface VcpuEnd {
  readonly handled: string;
  /** Why it is `fatal`. */
  readonly failure: string | undefined;
  readonly exitReason: number;
  readonly errno: number;
  /** KVM_RUNs that ended for a missing page. */
  readonly pageExits: number;
  readonly x4: bigint;
}

/** A thread that runs vCPUs, one after the other: an emulated CPU takes seconds to start one. */
export class VcpuThread {
  readonly #worker = new Worker(new URL('./vcpu-worker.js', import.meta.url));

  /** Runs a vCPU until it says that it is done. Rejects if the thread ends. */
  async run(task: VcpuTask): Promise<VcpuEnd> {
    this.#worker.postMessage(task);
    const [end] = (await once(this.#worker, 'message')) as [VcpuEnd];
    return end;
  }

  async close(): Promise<void> {
    await this.#worker.terminate();
  }
}
