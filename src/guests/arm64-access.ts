import { MemoryLayout } from '../api/layout.js';
import { GUEST_WORDS, guestCode, guestEntry, isNamed } from '../conformance/index.js';
import { arm64CoreRegister, arm64SystemRegister, ERRNO, type KvmExit } from '../linux/index.js';
import { type ARM64_ENTRY } from './arm64-code.js';
import { Arm64Space } from './arm64-space.js';
import { FailedAccess, RunningVcpu } from './running-vcpu.js';
import { type GuestAccess, type GuestResult, type GuestSite, type VcpuPlace } from './messages.js';
import { seenOfPage } from './seen-of-page.js';

/** The access sites that the vCPUs of an arm64 guest can exercise. */
export const ARM64_SITES = [
  'vcpu-load',
  'vcpu-store',
  'vcpu-atomic',
  'vcpu-fetch',
  'vcpu-walk',
] as const satisfies readonly GuestSite[];

const ESR = arm64SystemRegister(3, 0, 5, 2, 0);
/** Exception classes: an undefined instruction, and an abort of a load or store of the guest. */
const UNKNOWN = 0x00;
const DATA_ABORT = 0x25;

/** An arm64 vCPU on the thread that runs it, for as long as it makes accesses. */
export class Arm64Access implements Disposable {
  readonly #running: RunningVcpu;
  readonly #space: Arm64Space;
  readonly #layout: MemoryLayout;
  readonly #buffer: Uint8Array;
  readonly #bufferAt: number;

  constructor(place: VcpuPlace) {
    this.#layout = new MemoryLayout(place.regions);
    this.#space = new Arm64Space(this.#layout, place.vcpus);
    this.#running = new RunningVcpu(place, this.#space.length);
    const { buffer, buffer_bytes } = this.#space.area(place.index);
    this.#bufferAt = buffer;
    this.#buffer = this.#running.bytes(buffer - this.#space.base, buffer_bytes);
  }

  /** Makes one access; blocks until it has completed. */
  make(site: GuestSite, access: GuestAccess): GuestResult {
    const { page, offset, length, bytes } = access;
    const at = Number(this.#layout.gpaOf(page)) + offset;
    try {
      if (site === 'vcpu-fetch')
        return { ok: true, bytes: this.#seen(access, GUEST_WORDS.code, this.#fetch(page)) };
      if (site === 'vcpu-walk')
        return { ok: true, bytes: this.#seen(access, GUEST_WORDS.entry, this.#walk(page)) };
      if (bytes === undefined) return { ok: true, bytes: this.#read(site, at, length) };
      this.#write(site, at, bytes);
      return { ok: true, bytes: new Uint8Array(0) };
    } catch (error) {
      if (!(error instanceof FailedAccess)) throw error;
      return { ok: false, errno: error.errno, injected: error.injected, why: error.message };
    }
  }

  [Symbol.dispose](): void {
    this.#running[Symbol.dispose]();
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

  #move(code: 'copy' | 'add' | 'swap', from: number, to: number, length: number): void {
    if (code !== 'copy' && length % 8 !== 0)
      throw new RangeError(`${length} bytes: atomics are of eight bytes each`);
    // Eight bytes and four are one access each, as those of the VMM or the kernel.
    const piece = code === 'copy' && length === 4 ? 'word' : code;
    this.#begin(piece, { x0: from, x1: to, x2: Math.floor(length / 8), x3: length % 8 });
    this.#expectDone(this.#running.run());
  }

  // ── code and page tables ──

  #seen(access: GuestAccess, where: number, seen: Uint8Array): Uint8Array {
    const start = Number(this.#layout.gpaOf(access.page));
    const load = (offset: number, length: number): Uint8Array =>
      this.#read('vcpu-load', start + offset, length);
    return seenOfPage(load, access, where, seen);
  }

  /** Executes the code in a page; zeros are no valid instruction. */
  #fetch(page: number): Uint8Array {
    this.#begin('fetch', { x0: Number(this.#layout.gpaOf(page)) + GUEST_WORDS.code });
    const exit = this.#running.run();
    if (this.#isException(exit) && this.#syndrome().cause === UNKNOWN) return new Uint8Array(8);
    this.#expectDone(exit);
    return guestCode(Number(this.#running.vcpu.register(arm64CoreRegister('x0'))));
  }

  /**
   * Loads through the entry in a page: where that leads there is no memory, so that the exit says what it
   * was.
   */
  #walk(page: number): Uint8Array {
    this.#begin('walk', { x0: this.#space.translated(page, GUEST_WORDS.entry) });
    const exit = this.#running.run();
    if (exit.kind === 'mmio' && !exit.write && isNamed(exit.gpa)) {
      this.#running.vcpu.run.answerMmio(new Uint8Array(exit.data.length));
      this.#expectDone(this.#running.run());
      return guestEntry(exit.gpa);
    }
    if (this.#isException(exit) && this.#syndrome().noTranslation) return new Uint8Array(8);
    throw this.#failure(exit);
  }

  // ── running ──

  /**
   * The vCPU stopped after a store that KVM has yet to complete, so its pc cannot be set: x9 says where it
   * continues.
   */
  #begin(code: keyof typeof ARM64_ENTRY, registers: Record<string, number>): void {
    const { vcpu } = this.#running;
    for (const [name, value] of Object.entries({ ...registers, x9: this.#space.entry(code) }))
      vcpu.setRegister(arm64CoreRegister(name), BigInt(value));
  }

  #expectDone(exit: KvmExit): void {
    if (exit.kind === 'mmio' && exit.write && exit.gpa === this.#space.nowhere) return;
    throw this.#failure(exit);
  }

  #isException(exit: KvmExit): boolean {
    return exit.kind === 'mmio' && exit.write && exit.gpa === this.#space.exception;
  }

  /** The error for an exception that the guest took. */
  #syndrome(): { readonly cause: number; readonly noTranslation: boolean } {
    const syndrome = Number(this.#running.vcpu.register(ESR) & 0xffff_ffffn);
    const cause = syndrome >>> 26;
    return { cause, noTranslation: cause === DATA_ABORT && (syndrome & 0x3c) === 0x04 };
  }

  /** The error for an abort that KVM has injected, or an access that it could not carry out. */
  #failure(exit: KvmExit): FailedAccess {
    const injected = this.#isException(exit);
    const why = injected
      ? `the guest met exception ${this.#syndrome().cause}`
      : `KVM_RUN ended with ${exit.kind}`;
    return new FailedAccess(ERRNO.EFAULT, injected, why);
  }
}
