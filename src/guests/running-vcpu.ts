import { openVcpuExitHandler } from '../kvm/index.js';
import { ERRNO, type KvmExit, KvmVcpu, Mapping } from '../linux/index.js';
import { type VcpuPlace } from './messages.js';

/** An access that failed. */
export class FailedAccess extends Error {
  constructor(
    readonly errno: number,
    readonly injected: boolean,
    why: string,
  ) {
    super(why);
  }
}

const FAILURE_ERRNO = {
  poisoned: ERRNO.EHWPOISON,
  failed: ERRNO.EIO,
  closed: ERRNO.ESRCH,
  stopped: ERRNO.ESRCH,
} as const;

/**
 * A vCPU with its exit handler, if it has one, and the guest's own memory. Used on the thread that runs it.
 */
export class RunningVcpu implements Disposable {
  readonly vcpu: KvmVcpu;
  readonly #handler;
  readonly #memory: Mapping;

  /** `length`: bytes of the guest's own memory. */
  constructor(place: VcpuPlace, length: number) {
    this.#handler = place.exitHandlerToken && openVcpuExitHandler(place.exitHandlerToken, place.vcpu.fd);
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
    return this.#handler ? this.#handler.during(body) : body();
  }

  /** Runs the vCPU until an exit that its handler does not handle. Throws {@link FailedAccess}. */
  run(): KvmExit {
    for (;;) {
      this.#handler?.enter();
      const errno = -this.vcpu.enter();
      const handled = this.#handler
        ? this.#handler.onExit(this.vcpu.run, errno)
        : errno === ERRNO.EINTR || errno === ERRNO.EAGAIN
          ? 'reenter'
          : 'unhandled';
      if (handled === 'reenter' || handled === 'complete-mmio') continue;
      if (handled === 'failed')
        throw new FailedAccess(
          FAILURE_ERRNO[this.#handler!.failure!],
          false,
          `the page is ${this.#handler!.failure}`,
        );
      const exit = this.vcpu.run.exit();
      if (errno !== 0)
        throw new FailedAccess(errno, false, `KVM_RUN failed with errno ${errno}, exit ${exit.kind}`);
      return exit;
    }
  }

  [Symbol.dispose](): void {
    this.#handler?.close();
    this.vcpu.close();
    this.#memory.dispose();
  }
}
