import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import { type VcpuExitHandlerToken } from 'demand-paging/kvm';
import { duplicate, Kvm, type KvmVcpu, type KvmVm, raw } from 'demand-paging/linux';
import { DONE_PORT, restoreVcpu, type Share } from '../../examples/vmm/guest.js';
import { ROOT } from './native.js';
import { type Measured, rateOf } from './run.js';

const KVM_SET_TSS_ADDR = 0xae47;
const TSS_ADDRESS = 0xfffb_d000;
const CHILD = pathToFileURL(join(ROOT, 'bench', 'children', 'guest-vcpu.mjs'));

type Message =
  | { readonly kind: 'ready' }
  | { readonly kind: 'done'; readonly sum: bigint; readonly ended_ms: number }
  | { readonly kind: 'failed'; readonly why: string };

/** A virtual machine that runs the guest of the example, with a thread a vCPU. */
export class GuestRun implements Disposable {
  readonly vm: KvmVm;
  readonly #kvm = Kvm.open();
  readonly #shares: readonly Share[];
  readonly #vcpus: KvmVcpu[] = [];

  constructor(shares: readonly Share[]) {
    this.#shares = shares;
    this.vm = this.#kvm.createVm();
    raw.ioctl(this.vm.fd, KVM_SET_TSS_ADDR, TSS_ADDRESS);
  }

  /**
   * Runs the guest once. The threads are there and wait when `prepare` begins, and time with it; it ends with
   * the last vCPU. Rejects when a vCPU does not come to its end.
   */
  async run(
    tokenOf: (index: number) => VcpuExitHandlerToken | undefined,
    prepare: () => void = () => {},
  ): Promise<Measured> {
    const start = new SharedArrayBuffer(4);
    const threads = this.#shares.map((_, index) => new VcpuThread(this.#begin(index, tokenOf(index), start)));
    await Promise.all(threads.map(({ ready }) => ready));
    const began_ms = performance.timeOrigin + performance.now();
    prepare();
    Atomics.store(new Int32Array(start), 0, 1);
    Atomics.notify(new Int32Array(start), 0);
    const ends = await Promise.all(threads.map(({ done }) => done));
    await Promise.all(threads.map(({ gone }) => gone));
    const took_ms = Math.max(...ends.map(({ ended_ms }) => ended_ms)) - began_ms;
    const pages = this.#shares.reduce((total, share) => total + share.pages, 0);
    return {
      rate: rateOf(pages, took_ms * 1e6),
      sum: ends.reduce((total, { sum }) => total + sum, 0n),
    };
  }

  [Symbol.dispose](): void {
    for (const vcpu of this.#vcpus) vcpu.close();
    this.vm.close();
    this.#kvm.close();
  }

  #begin(index: number, token: VcpuExitHandlerToken | undefined, start: SharedArrayBuffer): Worker {
    const known = this.#vcpus[index];
    const vcpu = known ?? this.vm.createVcpu(index);
    if (!known) this.#vcpus.push(vcpu);
    restoreVcpu(vcpu, index, this.#shares[index]!, known === undefined);
    const descriptor = duplicate(vcpu.fd);
    const { run_bytes } = this.#kvm;
    return new Worker(CHILD, { workerData: { descriptor, run_bytes, token, start, donePort: DONE_PORT } });
  }
}

/** What is heard of a vCPU's thread. */
class VcpuThread {
  readonly ready: Promise<void>;
  readonly done: Promise<Extract<Message, { kind: 'done' }>>;
  readonly gone: Promise<void>;

  constructor(worker: Worker) {
    let isReady!: () => void;
    this.ready = new Promise((resolve, reject) => {
      isReady = resolve;
      worker.on('error', reject);
    });
    this.done = new Promise((resolve, reject) => {
      worker.on('error', reject);
      worker.on('message', (message: Message) => {
        if (message.kind === 'ready') isReady();
        else if (message.kind === 'done') resolve(message);
        else reject(new Error(`a vCPU came to no end: ${message.why}`));
      });
    });
    this.done.catch(() => {}); // its awaiter receives the error
    this.gone = new Promise((resolve) => worker.on('exit', () => resolve()));
  }
}
