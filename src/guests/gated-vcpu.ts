import { openVcpuGate } from '../kvm/index.js';
import { ERRNO, type KvmExit, KvmVcpu, Mapping } from '../linux/index.js';
import { type VcpuPlace } from './messages.js';

/** An access that did not go through. */
export class FailedAccess extends Error {
  constructor(
    readonly errno: number,
    readonly injected: boolean,
    why: string,
  ) {
    super(why);
  }
}

const GATE_ERRNO = {
  poisoned: ERRNO.EHWPOISON,
  failed: ERRNO.EIO,
  closed: ERRNO.ESRCH,
  stopped: ERRNO.ESRCH,
} as const;

/** A vCPU with its gate, if it has one, and the guest's own memory: on the thread that runs it. */
export class GatedVcpu implements Disposable {
  readonly vcpu: KvmVcpu;
  readonly #gate;
  readonly #memory: Mapping;

  /** `length`: of the guest's own memory. */
  constructor(place: VcpuPlace, length: number) {
    this.#gate = place.gate && openVcpuGate(place.gate, place.vcpu.fd);
    this.vcpu = KvmVcpu.borrow(place.vcpu);
    this.#memory = Mapping.borrow({
      kind: 'anonymous',
      address: place.own,
      length,
      pageSize: 4096,
      fd: undefined,
    });
  }

  /** Bytes of the guest's own memory, by offset. */
  bytes(offset: number, length: number): Uint8Array {
    return this.#memory.bytes(offset, length);
  }

  /** An ioctl of the vCPU's thread that may reach guest memory. */
  during<T>(body: () => T): T {
    return this.#gate ? this.#gate.during(body) : body();
  }

  /** Runs the vCPU until it leaves the kernel for a reason of its own. Throws {@link FailedAccess}. */
  run(): KvmExit {
    for (;;) {
      this.#gate?.enter();
      const errno = -this.vcpu.enter();
      const verdict = this.#gate
        ? this.#gate.onExit(this.vcpu.run, errno)
        : errno === ERRNO.EINTR || errno === ERRNO.EAGAIN
          ? 'again'
          : 'not-mine';
      if (verdict === 'again' || verdict === 'complete-mmio') continue;
      if (verdict === 'fatal')
        throw new FailedAccess(GATE_ERRNO[this.#gate!.failure!], false, `the page is ${this.#gate!.failure}`);
      const exit = this.vcpu.run.exit();
      if (errno !== 0)
        throw new FailedAccess(errno, false, `KVM_RUN failed with errno ${errno}, exit ${exit.kind}`);
      return exit;
    }
  }

  [Symbol.dispose](): void {
    this.#gate?.close();
    this.vcpu.close();
    this.#memory.dispose();
  }
}
