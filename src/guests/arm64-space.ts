import { type MemoryLayout } from '../api/layout.js';
import { arm64CoreRegister, arm64SystemRegister, type KvmVcpu, type KvmVm } from '../linux/index.js';
import { ARM64_CODE, ARM64_ENTRY } from './arm64-code.js';
import { type OwnMemory } from './own-memory.js';

const PAGE = 4096;
const LARGE = 0x20_0000;
const GIB = 0x4000_0000;
const ENTRIES = 512;
/** A block of level 1: accessed, inner shareable, attribute 0. */
const BLOCK = 0x701n;
const SEAT_BYTES = 0x1_0000;

const EL1 = 0x3c5n;
const SCTLR = arm64SystemRegister(3, 0, 1, 0, 0);
const TTBR0 = arm64SystemRegister(3, 0, 2, 0, 0);
const TCR = arm64SystemRegister(3, 0, 2, 0, 2);
const MAIR = arm64SystemRegister(3, 0, 10, 2, 0);
const WRITE_BACK = 0xffn;
/** 39 bits of address, pages of 4 KiB, walks write-back and inner shareable, nothing in the upper half, 40 bits physical. */
const TCR_VALUE = 25n | (1n << 8n) | (1n << 10n) | (3n << 12n) | (1n << 23n) | (2n << 32n);
const MMU_AND_CACHES = 0x1005n;

/**
 * Where everything lies in an arm64 guest whose memory of a layout is paged: code, one page table that maps everything one
 * to one, and a buffer a vCPU, beyond the layout.
 */
export class Arm64Space implements OwnMemory {
  readonly base: number;
  readonly length: number;

  /** Throws RangeError for a layout that reaches beyond 256 GiB. */
  constructor(layout: MemoryLayout, vcpus: number) {
    const end = layout.regions.reduce(
      (most, { gpa, length }) => Math.max(most, Number(gpa) + Number(length)),
      0,
    );
    this.base = Math.ceil(end / LARGE) * LARGE;
    this.length = Math.ceil((2 * PAGE + vcpus * SEAT_BYTES) / LARGE) * LARGE;
    if (this.base + this.length > 256 * GIB)
      throw new RangeError(`guest memory up to 0x${end.toString(16)}; vCPUs here reach 256 GiB`);
  }

  /** Where no memory is: a store there ends a piece of code. */
  get nowhere(): number {
    return this.base + this.length;
  }

  entry(name: keyof typeof ARM64_ENTRY): number {
    return this.base + ARM64_ENTRY[name];
  }

  /** A buffer that one vCPU has to itself. */
  seat(index: number): { readonly buffer: number; readonly bufferBytes: number } {
    const start = this.base + 2 * PAGE + index * SEAT_BYTES;
    return { buffer: start, bufferBytes: SEAT_BYTES };
  }

  write(memory: Uint8Array): void {
    memory.set(new Uint8Array(ARM64_CODE.buffer), 0);
    const tables = new BigUint64Array(memory.buffer, memory.byteOffset + PAGE, ENTRIES);
    for (let gib = 0; gib < ENTRIES; gib++) tables[gib] = BigInt(gib * GIB) | BLOCK;
  }

  prepare(): void {
    // Nothing but slots is needed.
  }

  start(vcpu: KvmVcpu, vm: KvmVm): void {
    vcpu.initialise(vm.preferredTarget());
    vcpu.setRegister(arm64CoreRegister('pstate'), EL1);
    vcpu.setRegister(arm64CoreRegister('pc'), BigInt(this.entry('idle')));
    vcpu.setRegister(arm64CoreRegister('x10'), BigInt(this.nowhere));
    vcpu.setRegister(MAIR, WRITE_BACK);
    vcpu.setRegister(TTBR0, BigInt(this.base + PAGE));
    vcpu.setRegister(TCR, TCR_VALUE);
    vcpu.setRegister(SCTLR, vcpu.register(SCTLR) | MMU_AND_CACHES);
  }
}
