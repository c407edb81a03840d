import { type PageIndex } from '../api/address.js';
import { type MemoryLayout } from '../api/layout.js';
import { arm64CoreRegister, arm64SystemRegister, type KvmVcpu, type KvmVm } from '../linux/index.js';
import { ARM64_CODE, ARM64_ENTRY, ARM64_VECTOR } from './arm64-code.js';
import { type OwnMemory } from './own-memory.js';

const PAGE = 4096;
const LARGE = 0x20_0000;
const GIB = 0x4000_0000;
const ENTRIES = 512;
/** A block of level 1: accessed, inner shareable, attribute 0. */
const BLOCK = 0x701n;
const TABLE = 0x3n;
/** Where the windows on page tables begin, in guest-virtual bytes; below lies the identity mapping. */
const WALK_WINDOWS = 256 * GIB;
/** Pages of the layout that have windows. */
const MOST_WINDOWS = 4096;
const AREA_BYTES = 0x1_0000;
/** Exceptions are taken at such multiples from VBAR_EL1; 16 of them. */
const VECTOR_BYTES = 0x80;

const EL1 = 0x3c5n;
const SCTLR = arm64SystemRegister(3, 0, 1, 0, 0);
const TTBR0 = arm64SystemRegister(3, 0, 2, 0, 0);
const TCR = arm64SystemRegister(3, 0, 2, 0, 2);
const VBAR = arm64SystemRegister(3, 0, 12, 0, 0);
const MAIR = arm64SystemRegister(3, 0, 10, 2, 0);
const WRITE_BACK = 0xffn;
/**
 * 39 bits of address, pages of 4 KiB, walks write-back and inner shareable, nothing in the upper half, 40
 * bits physical.
 */
const TCR_VALUE = 25n | (1n << 8n) | (1n << 10n) | (3n << 12n) | (1n << 23n) | (2n << 32n);
const MMU_AND_CACHES = 0x1005n;

/**
 * The address space of an arm64 guest whose layout is paged. Code, page tables with an identity mapping,
 * vectors and a buffer for each vCPU lie beyond the layout. In addition each of the first pages of the layout
 * has a window in which it serves as a page table.
 */
export class Arm64Space implements OwnMemory {
  readonly base: number;
  readonly length: number;
  readonly #layout: MemoryLayout;
  readonly #windows: number;
  readonly #areas: number;

  /** Throws RangeError for a layout that reaches beyond 256 GiB. */
  constructor(layout: MemoryLayout, vcpus: number) {
    const end = layout.regions.reduce(
      (most, { gpa, length }) => Math.max(most, Number(gpa) + Number(length)),
      0,
    );
    this.#layout = layout;
    this.base = Math.ceil(end / LARGE) * LARGE;
    this.#windows = Math.min(layout.pageCount, MOST_WINDOWS);
    this.#areas = this.base + (3 + Math.ceil(this.#windows / ENTRIES)) * PAGE;
    this.length = Math.ceil((this.#areas - this.base + vcpus * AREA_BYTES) / LARGE) * LARGE;
    if (this.base + this.length > WALK_WINDOWS)
      throw new RangeError(`guest memory up to 0x${end.toString(16)}; vCPUs here reach 256 GiB`);
  }

  /** An address without memory: a store there ends a piece of code. */
  get nowhere(): number {
    return this.base + this.length;
  }

  /** An address without memory: a store there reports that the guest took an exception. */
  get exception(): number {
    return this.nowhere + 8;
  }

  /** The address that is translated by the entry at a byte of a page. */
  translated(page: PageIndex, offset: number): number {
    if (page >= this.#windows)
      throw new RangeError(`page ${page}: vCPUs walk the first ${this.#windows} only`);
    return WALK_WINDOWS + page * LARGE + (offset / 8) * PAGE;
  }

  entry(name: keyof typeof ARM64_ENTRY): number {
    return this.base + ARM64_ENTRY[name];
  }

  /** The buffer of one vCPU. */
  area(index: number): { readonly buffer: number; readonly buffer_bytes: number } {
    const start = this.#areas + index * AREA_BYTES;
    return { buffer: start, buffer_bytes: AREA_BYTES };
  }

  write(memory: Uint8Array): void {
    memory.set(new Uint8Array(ARM64_CODE.buffer), 0);
    const table = (at: number): BigUint64Array =>
      new BigUint64Array(memory.buffer, memory.byteOffset + at, ENTRIES);
    const level1 = table(PAGE);
    for (let gib = 0; gib < ENTRIES; gib++) level1[gib] = BigInt(gib * GIB) | BLOCK;
    for (let vector = 0; vector < 16; vector++)
      memory.set(new Uint8Array(ARM64_VECTOR.buffer), 2 * PAGE + vector * VECTOR_BYTES);
    for (let page = 0; page < this.#windows; page++) {
      const level2 = (3 + Math.floor(page / ENTRIES)) * PAGE;
      level1[Math.floor((WALK_WINDOWS + page * LARGE) / GIB)] = BigInt(this.base + level2) | TABLE;
      table(level2)[page % ENTRIES] = this.#layout.gpaOf(page) | TABLE;
    }
  }

  prepare(): void {
    // Only memslots are needed.
  }

  start(vcpu: KvmVcpu, vm: KvmVm): void {
    vcpu.initialise(vm.preferredTarget());
    vcpu.setRegister(arm64CoreRegister('pstate'), EL1);
    vcpu.setRegister(arm64CoreRegister('pc'), BigInt(this.entry('idle')));
    vcpu.setRegister(arm64CoreRegister('x10'), BigInt(this.nowhere));
    vcpu.setRegister(arm64CoreRegister('x11'), BigInt(this.exception));
    vcpu.setRegister(arm64CoreRegister('x12'), BigInt(this.entry('done')));
    vcpu.setRegister(VBAR, BigInt(this.base + 2 * PAGE));
    vcpu.setRegister(MAIR, WRITE_BACK);
    vcpu.setRegister(TTBR0, BigInt(this.base + PAGE));
    vcpu.setRegister(TCR, TCR_VALUE);
    vcpu.setRegister(SCTLR, vcpu.register(SCTLR) | MMU_AND_CACHES);
  }
}
