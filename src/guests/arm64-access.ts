import { MemoryLayout } from '../api/layout.js';
import { arm64CoreRegister, ERRNO } from '../linux/index.js';
import { type ARM64_ENTRY } from './arm64-code.js';
import { Arm64Space } from './arm64-space.js';
import { FailedAccess, GatedVcpu } from './gated-vcpu.js';
import { type GuestAccess, type GuestResult, type GuestSite, type VcpuPlace } from './messages.js';

/** What the vCPUs of an arm64 guest can be told to do. */
export const ARM64_SITES = ['vcpu-load', 'vcpu-store', 'vcpu-atomic'] as const satisfies readonly GuestSite[];

/** An arm64 vCPU on the thread that runs it, for as long as it makes accesses. */
export class Arm64Access implements Disposable {
  readonly #gated: GatedVcpu;
  readonly #space: Arm64Space;
  readonly #layout: MemoryLayout;
  readonly #buffer: Uint8Array;
  readonly #bufferAt: number;

  constructor(place: VcpuPlace) {
    this.#layout = new MemoryLayout(place.regions);
    this.#space = new Arm64Space(this.#layout, place.vcpus);
    this.#gated = new GatedVcpu(place, this.#space.length);
    const { buffer, bufferBytes } = this.#space.seat(place.index);
    this.#bufferAt = buffer;
    this.#buffer = this.#gated.bytes(buffer - this.#space.base, bufferBytes);
  }

  /** Makes one access; blocks until it is through. */
  make(site: GuestSite, { page, offset, length, bytes }: GuestAccess): GuestResult {
    const at = Number(this.#layout.gpaOf(page)) + offset;
    try {
      if (bytes === undefined) return { ok: true, bytes: this.#read(site, at, length) };
      this.#write(site, at, bytes);
      return { ok: true, bytes: new Uint8Array(0) };
    } catch (error) {
      if (!(error instanceof FailedAccess)) throw error;
      return { ok: false, errno: error.errno, injected: error.injected, why: error.message };
    }
  }

  [Symbol.dispose](): void {
    this.#gated[Symbol.dispose]();
  }

  #read(site: GuestSite, from: number, length: number): Uint8Array {
    const into = new Uint8Array(length);
    for (let done = 0; done < length; done += this.#buffer.length) {
      const count = Math.min(this.#buffer.length, length - done);
      this.#move(site === 'vcpu-atomic' ? 'add' : 'copy', from + done, this.#bufferAt, count);
      into.set(this.#buffer.subarray(0, count), done);
    }
    return into;
  }

  #write(site: GuestSite, to: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length; done += this.#buffer.length) {
      const piece = bytes.subarray(done, done + this.#buffer.length);
      this.#buffer.set(piece);
      this.#move(site === 'vcpu-atomic' ? 'swap' : 'copy', this.#bufferAt, to + done, piece.length);
    }
  }

  #move(
    code: Exclude<keyof typeof ARM64_ENTRY, 'done' | 'idle'>,
    from: number,
    to: number,
    length: number,
  ): void {
    if (code !== 'copy' && length % 8 !== 0)
      throw new RangeError(`${length} bytes: atomics are of eight bytes each`);
    const registers = {
      x0: from,
      x1: to,
      x2: Math.floor(length / 8),
      x3: length % 8,
      x9: this.#space.entry(code),
    };
    for (const [name, value] of Object.entries(registers))
      this.#gated.vcpu.setRegister(arm64CoreRegister(name), BigInt(value));
    const exit = this.#gated.run();
    if (exit.kind === 'mmio' && exit.write && exit.gpa === this.#space.nowhere) return;
    // An access that KVM could not carry out, or an abort, for which the guest has no vectors.
    throw new FailedAccess(ERRNO.EFAULT, false, `KVM_RUN ended with ${exit.kind}`);
  }
}
