import { closeSync } from 'node:fs';
import {
  ERRNO,
  GUEST_MEMFD_SHARED,
  type KvmVcpu,
  mapMemory,
  type X86SpecialRegisters,
  X86_USER_FLAGS,
} from '../../../src/linux/index.js';
import { ENTRY, LOW, PAGE, PAGED, PORT, type Rig } from '../kvm/rig.js';
import { AT, PAGES, type Step, type World } from './kvm-history.js';

/** `out 0x80, al`: a page that is jumped to says that it was reached. */
const REACHED = [0xe6, PORT.done];
/** An entry of a page directory: user, writable, 2 MiB, at 0. */
const LOW_MEMORY_2M = 0x87;
/** Page directory pointers beyond the first lead to the pages under test, each as a page directory. */
const POINTERS = LOW.tables + PAGE;
const GIB = 0x4000_0000;

/** A history on this machine's KVM: one slot a page, vacated (or absent) until contents are in place. */
export class SlotsWorld implements World {
  readonly #rig: Rig;
  readonly #strategy: 'vacated-slot' | 'memslot-hole';
  readonly #memory = mapMemory({ kind: 'anonymous', length: PAGES * PAGE });
  readonly #nowhere = mapMemory({ kind: 'reserved', length: PAGES * PAGE });
  readonly #live = new Array<boolean>(PAGES).fill(false);
  readonly #vcpu: KvmVcpu;
  readonly #special: X86SpecialRegisters;

  constructor(rig: Rig, vcpu: KvmVcpu, strategy: 'vacated-slot' | 'memslot-hole') {
    this.#rig = rig;
    this.#vcpu = vcpu;
    this.#special = vcpu.specialRegisters;
    this.#strategy = strategy;
    const tables = rig.low.bytes();
    const pointers = new DataView(tables.buffer, tables.byteOffset + POINTERS);
    for (let page = 0; page < PAGES; page++) {
      pointers.setBigUint64((page + 1) * 8, BigInt(PAGED + page * PAGE) | 7n, true);
      this.#vacate(page);
    }
  }

  step(step: Step): string {
    switch (step.do) {
      case 'install': {
        if (this.#live[step.page]) return 'already-present';
        this.#fill(step.page, step.value);
        this.#goLive(step.page);
        return 'installed';
      }
      case 'discard-refetch':
        if (this.#live[step.page]) {
          this.#slot(step.page, 0);
          this.#vacate(step.page);
        }
        this.#memory.advise('DONTNEED', step.page * PAGE, PAGE);
        return 'discarded';
      case 'access':
        return this.#access(step);
    }
  }

  async close(): Promise<void> {
    for (let page = 0; page < PAGES; page++) this.#slot(page, 0);
    this.#memory.dispose();
    this.#nowhere.dispose();
  }

  #access({ site, page, value }: Extract<Step, { do: 'access' }>): string {
    const bytes = this.#memory.bytes();
    const at = page * PAGE + AT.value;
    const linear = BigInt(PAGED + at);
    switch (site) {
      case 'vmm-load':
        return `read ${bytes[at]}`;
      case 'vmm-store':
        bytes[at] = value;
        return 'done';
      case 'kernel-copy':
        // A walk by KVM itself reads an entry of the page as a page directory.
        return this.#vcpu.translate(BigInt((page + 1) * GIB)).valid || this.#live[page] ? 'done' : 'errored';
      case 'vcpu-load':
        return this.#run(ENTRY.load, linear, 0n, () => `read ${this.#vcpu.registers.rax & 0xffn}`);
      case 'vcpu-store':
        return this.#run(ENTRY.store, linear, BigInt(value), () => 'done');
      case 'vcpu-atomic':
        return this.#run(ENTRY.atomic, linear, 1n, () => `read ${this.#vcpu.registers.rsi & 0xffn}`);
      case 'vcpu-fetch':
        return this.#run(ENTRY.jump, BigInt(PAGED + page * PAGE + AT.code), 0n, () => 'done');
      default:
        throw new Error(`${site} is not played`);
    }
  }

  #run(entry: number, rdi: bigint, rsi: bigint, done: () => string): string {
    const vcpu = this.#vcpu;
    vcpu.setSpecialRegisters(this.#special); // a shutdown leaves nothing of them
    vcpu.setRegisters({ rip: BigInt(LOW.code + entry), rflags: X86_USER_FLAGS, rdi, rsi });
    const errno = Math.abs(vcpu.enter());
    const exit = vcpu.run.exit();
    if (exit.kind === 'io') return done();
    if (exit.kind === 'memory-fault' && errno === ERRNO.EFAULT) return 'exited';
    if (exit.kind === 'mmio') {
      this.#abandon();
      return 'exited';
    }
    // Code that cannot be read: KVM gives the vCPU up, or, where the processor translates in two stages, the
    // guest meets a fault and then has none to handle it. The model has the one for both.
    if (exit.kind === 'internal-error' || exit.kind === 'shutdown') return 'errored';
    return `${exit.kind} errno ${errno}`;
  }

  /** Lets an emulated access come to its end, however it does, without the guest going on. */
  #abandon(): void {
    const { run } = this.#vcpu;
    run.immediateExit = true;
    for (let rounds = 0; this.#vcpu.enter() === 0 && rounds < 8; rounds++);
    run.immediateExit = false;
  }

  #fill(page: number, value: number): void {
    const bytes = this.#memory.bytes();
    bytes.fill(0, page * PAGE, (page + 1) * PAGE);
    bytes[page * PAGE] = LOW_MEMORY_2M;
    bytes.set(REACHED, page * PAGE + AT.code);
    bytes[page * PAGE + AT.value] = value;
  }

  #goLive(page: number): void {
    if (this.#strategy === 'vacated-slot') this.#slot(page, 0);
    this.#slot(page, PAGE);
    this.#live[page] = true;
  }

  /** A slot over ordinary memory, or none. */
  #slot(page: number, length: number): void {
    const userspace = this.#memory.address + page * PAGE;
    this.#rig.vm.trySetSlot({ slot: 1 + page, gpa: PAGED + page * PAGE, length, userspace });
    if (length === 0) this.#live[page] = false;
  }

  #vacate(page: number): void {
    if (this.#strategy === 'memslot-hole') return;
    const { vm } = this.#rig;
    const guestMemfd = vm.createGuestMemfd(PAGE, GUEST_MEMFD_SHARED);
    const userspace = this.#nowhere.address + page * PAGE;
    vm.setSlot({ slot: 1 + page, gpa: PAGED + page * PAGE, length: PAGE, userspace, guestMemfd });
    closeSync(guestMemfd);
  }
}
