import { MemoryLayout } from '../api/layout.js';
import { GUEST_WORDS, guestCode, guestEntry, isNamed } from '../conformance/index.js';
import { ERRNO, type KvmExit, type KvmVcpu, X86_USER_FLAGS } from '../linux/index.js';
import { PORT } from './code.js';
import { FailedAccess, RunningVcpu } from './running-vcpu.js';
import { GuestSpace, type VcpuArea } from './guest-space.js';
import { type GuestAccess, type GuestResult, type GuestSite, type VcpuPlace } from './messages.js';
import { seenOfPage } from './seen-of-page.js';
import { enterUserMode } from './x86-vcpu.js';

const PRESENT = 1;
/** Bytes of one unit of the string instruction. */
const UNIT = 4;

/** A vCPU on the thread that runs it, for as long as it makes accesses. */
export class VcpuAccess implements Disposable {
  readonly #running: RunningVcpu;
  readonly #vcpu: KvmVcpu;
  readonly #space: GuestSpace;
  readonly #layout: MemoryLayout;
  readonly #area: VcpuArea;
  readonly #buffer: Uint8Array;

  constructor(place: VcpuPlace) {
    this.#layout = new MemoryLayout(place.regions);
    this.#space = new GuestSpace(this.#layout, place.vcpus);
    this.#area = this.#space.area(place.index);
    const { base, length } = this.#space;
    this.#running = new RunningVcpu(place, length);
    this.#vcpu = this.#running.vcpu;
    this.#buffer = this.#running.bytes(this.#area.buffer - base, this.#area.buffer_bytes);
  }

  /** Makes one access; blocks until it has completed. */
  make(site: GuestSite, access: GuestAccess): GuestResult {
    try {
      const { page, offset, length, bytes } = access;
      if (bytes) {
        this.#write(site, this.#at(page, offset), bytes);
        return { ok: true, bytes: new Uint8Array(0) };
      }
      if (site === 'vcpu-fetch') return this.#seen(access, GUEST_WORDS.code, this.#fetch(page));
      if (site === 'vcpu-walk') return this.#seen(access, GUEST_WORDS.entry, this.#walk(access));
      if (site === 'kernel-copy' && access.kernel === 'translate')
        return this.#seen(access, GUEST_WORDS.entry, this.#translate(page));
      return { ok: true, bytes: this.#read(site, this.#at(page, offset), length) };
    } catch (error) {
      if (!(error instanceof FailedAccess)) throw error;
      return { ok: false, errno: error.errno, injected: error.injected, why: error.message };
    }
  }

  [Symbol.dispose](): void {
    this.#running[Symbol.dispose]();
  }

  #at(page: number, offset: number): number {
    return Number(this.#layout.gpaOf(page)) + offset;
  }

  // ── data ──

  #read(site: GuestSite, from: number, length: number): Uint8Array {
    const into = new Uint8Array(length);
    for (let done = 0; done < length;) {
      const count = Math.min(this.#buffer.length, length - done);
      const at = from + done;
      if (site === 'kernel-copy') into.set(this.#takeOut(at, count), done);
      else {
        this.#move(site === 'vcpu-atomic' ? 'add' : 'copy', at, this.#area.buffer, count);
        into.set(this.#buffer.subarray(0, count), done);
      }
      done += count;
    }
    return into;
  }

  #write(site: GuestSite, to: number, bytes: Uint8Array): void {
    for (let done = 0; done < bytes.length;) {
      const piece = bytes.subarray(done, done + this.#buffer.length);
      if (site === 'kernel-copy') this.#putIn(to + done, piece);
      else {
        this.#buffer.set(piece);
        this.#move(site === 'vcpu-atomic' ? 'swap' : 'copy', this.#area.buffer, to + done, piece.length);
      }
      done += piece.length;
    }
  }

  #move(code: 'copy' | 'add' | 'swap', from: number, to: number, length: number): void {
    if (code !== 'copy' && length % 8 !== 0)
      throw new RangeError(`${length} bytes: atomics are of eight bytes each`);
    // Eight bytes and four are one access each, as those of the VMM or the kernel.
    const piece = code === 'copy' && length === 4 ? 'word' : code;
    this.#begin(piece, { rsi: from, rdi: to, rcx: Math.floor(length / 8), rdx: length % 8 });
    this.#expectPort(PORT.done);
  }

  /** KVM reads memory for the string instruction and exits with each unit. */
  #takeOut(from: number, length: number): Uint8Array {
    const into = new Uint8Array(length);
    let done = 0;
    this.#begin('outs', { rsi: from, rcx: this.#unitsOf(length), rdx: PORT.data });
    for (;;) {
      const exit = this.#runToPort();
      if (exit.port === PORT.done) return into;
      const data = this.#vcpu.run.ioData(exit);
      into.set(data, done);
      done += data.length;
    }
  }

  /** KVM exits for each unit that the string instruction writes, and writes it. */
  #putIn(to: number, bytes: Uint8Array): void {
    let done = 0;
    this.#begin('ins', { rdi: to, rcx: this.#unitsOf(bytes.length), rdx: PORT.data });
    for (;;) {
      const exit = this.#runToPort();
      if (exit.port === PORT.done) return;
      const data = this.#vcpu.run.ioData(exit);
      data.set(bytes.subarray(done, done + data.length));
      done += data.length;
    }
  }

  #unitsOf(length: number): number {
    if (length % UNIT !== 0) throw new RangeError(`${length} bytes: string I/O moves ${UNIT} at a time`);
    return length / UNIT;
  }

  // ── code and page tables ──

  #seen(access: GuestAccess, where: number, seen: Uint8Array): GuestResult {
    const load = (offset: number, length: number): Uint8Array =>
      this.#read('vcpu-load', this.#at(access.page, offset), length);
    return { ok: true, bytes: seenOfPage(load, access, where, seen) };
  }

  /** Executes the code in a page; in a page of zeros execution runs on into the code after the page. */
  #fetch(page: number): Uint8Array {
    const { scratch } = this.#area;
    const rsi = this.#space.executed(page, GUEST_WORDS.code);
    this.#begin('fetch', { rsi, rax: scratch, r9: this.#space.entry('arrived') });
    const { port } = this.#runToPort();
    if (port === PORT.nothing) return new Uint8Array(8);
    return guestCode(Number(this.#vcpu.registers.rax & 0xffff_ffffn));
  }

  /**
   * Loads through the entry in a page: where that leads there is no memory, so that the exit says what it
   * was.
   */
  #walk({ page, injects }: GuestAccess): Uint8Array {
    this.#begin('walk', { rsi: this.#space.translated(page, GUEST_WORDS.entry) });
    const exit = this.#running.run();
    if (exit.kind === 'mmio' && !exit.write && isNamed(exit.gpa)) {
      this.#vcpu.run.answerMmio(new Uint8Array(exit.data.length));
      this.#expectPort(PORT.done);
      return guestEntry(exit.gpa);
    }
    // A guest without handlers shuts down at any page fault: of a non-present entry, or one that KVM has
    // injected.
    if (exit.kind !== 'shutdown') throw this.#failure(exit);
    if (injects) throw new FailedAccess(ERRNO.EFAULT, true, 'the guest saw a page fault');
    enterUserMode(this.#vcpu, this.#space);
    const loaded = this.#read('vcpu-load', this.#at(page, GUEST_WORDS.entry), 8);
    if (loaded[0]! & PRESENT)
      throw new FailedAccess(ERRNO.EFAULT, true, 'the guest saw a page fault where there is an entry');
    return loaded;
  }

  /** KVM walks the page tables for an ioctl. */
  #translate(page: number): Uint8Array {
    const linear = BigInt(this.#space.translated(page, GUEST_WORDS.entry));
    const walk = (): { valid: boolean; gpa: bigint } => this.#vcpu.translate(linear);
    const { valid, gpa } = this.#running.during(walk);
    if (!valid) throw new FailedAccess(ERRNO.EFAULT, false, 'KVM translates nothing there');
    return guestEntry(Number(gpa));
  }

  // ── running ──

  #begin(code: Parameters<GuestSpace['entry']>[0], registers: Record<string, number>): void {
    const given = Object.entries(registers).map(([name, value]) => [name, BigInt(value)]);
    this.#vcpu.setRegisters({
      rip: BigInt(this.#space.entry(code)),
      rflags: X86_USER_FLAGS,
      rsp: BigInt(this.#area.scratch),
      ...(Object.fromEntries(given) as Record<string, bigint>),
    });
  }

  #expectPort(port: number): void {
    const exit = this.#runToPort();
    if (exit.port !== port)
      throw new FailedAccess(ERRNO.EFAULT, false, `the guest came to port ${exit.port}`);
  }

  #runToPort(): Extract<KvmExit, { kind: 'io' }> {
    const exit = this.#running.run();
    if (exit.kind === 'io') return exit;
    throw this.#failure(exit);
  }

  #failure(exit: KvmExit): FailedAccess {
    const injected = exit.kind === 'shutdown';
    return new FailedAccess(ERRNO.EFAULT, injected, `KVM_RUN ended with ${exit.kind}`);
  }
}
