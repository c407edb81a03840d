import { parentPort } from 'node:worker_threads';
import { openVcpuExitHandler, type VcpuExitHandlerToken } from 'demand-paging/kvm';
import { KvmVcpu, threadId } from 'demand-paging/linux';
import { DONE_PORT } from './guest.js';

/** What a vCPU's thread is handed. */
export interface VcpuData {
  readonly role: 'vcpu';
  readonly descriptor: number;
  readonly run_bytes: number;
  /** Absent for a backend that stops vCPUs inside KVM_RUN. */
  readonly exitHandlerToken: VcpuExitHandlerToken | undefined;
  /** One word: the guest begins when it is no longer 0. */
  readonly start?: SharedArrayBuffer;
}

export type VcpuReport =
  | { readonly kind: 'started'; readonly thread: number }
  | { readonly kind: 'done'; readonly sum: bigint; readonly exits: number; readonly elapsed_ms: number }
  | { readonly kind: 'failed'; readonly why: string };

/** Runs a vCPU until its guest says that it is through. */
export function runVcpu({ descriptor, run_bytes, exitHandlerToken, start }: VcpuData): void {
  const vcpu = KvmVcpu.adopt(descriptor, run_bytes);
  const handler = exitHandlerToken && openVcpuExitHandler(exitHandlerToken, descriptor);
  const tell = (report: VcpuReport): void => parentPort!.postMessage(report);
  tell({ kind: 'started', thread: threadId() });
  if (start) Atomics.wait(new Int32Array(start), 0, 0);
  const began = performance.now();
  for (let exits = 1; ; exits++) {
    handler?.enter();
    const errno = Math.abs(vcpu.enter());
    const handled = handler?.onExit(vcpu.run, errno) ?? 'unhandled';
    if (handled === 'reenter' || handled === 'complete-mmio') continue;
    const exit = vcpu.run.exit();
    if (handled === 'unhandled' && exit.kind === 'io' && exit.port === DONE_PORT) {
      tell({ kind: 'done', sum: vcpu.registers.rax, exits, elapsed_ms: performance.now() - began });
    } else {
      const { rip } = vcpu.registers;
      const why =
        handled === 'failed'
          ? `the page is ${handler!.failure}`
          : `errno ${errno}, exit ${JSON.stringify(exit, plain)}`;
      tell({ kind: 'failed', why: `${why} at rip 0x${rip.toString(16)}` });
    }
    break;
  }
  handler?.close();
  vcpu.close();
}

const plain = (_key: string, value: unknown): unknown =>
  typeof value === 'bigint' ? `0x${value.toString(16)}` : value;
