import { type PageIndex } from '../api/address.js';
import { type MemoryLayout } from '../api/layout.js';
import { type KvmVcpu, type KvmVm, raw, X86_LONG_MODE_CPUID } from '../linux/index.js';
import { ENTRY, GUEST_CODE } from './code.js';
import { type OwnMemory } from './own-memory.js';
import { enterUserMode } from './x86-vcpu.js';

const KVM_SET_TSS_ADDR = 0xae47;
/** Below 4 GiB, where no guest has memory. */
const TSS_ADDRESS = 0xfffb_d000;
const PAGE = 4096;
const LARGE = 0x20_0000;
const GIB = 0x4000_0000;
const ENTRIES = 512;
/** Page-table entries: present, writable, user, accessed and dirty already, so that no walk writes any. */
const TABLE = 0x67n;
const LARGE_PAGE = 0xe7n;

/** Where the windows on single pages begin, in guest-virtual bytes; below lies the identity mapping. */
const FETCH_WINDOWS = 256 * GIB;
const WALK_WINDOWS = 384 * GIB;
/** Pages of the layout that have windows. */
const MOST_WINDOWS = 4096;
/** Bytes of one vCPU's own area. */
const AREA_BYTES = 0x1_0000;
const STACK_BYTES = PAGE;

/** The area of one vCPU, by guest-physical address. */
export interface VcpuArea {
  /** The target of unintended writes. */
  readonly scratch: number;
  /** The bytes that the vCPU has read or writes. */
  readonly buffer: number;
  readonly buffer_bytes: number;
}

/**
 * The address space of a guest whose layout is paged. Code, page tables and a buffer for each vCPU lie in
 * memory of the guest's own, beyond the layout, which is always present: an access can only find its target
 * missing. Guest-virtual addresses equal guest-physical ones; in addition each of the first pages of the
 * layout has a window in which it is executed, and one in which it serves as a page table.
 */
export class GuestSpace implements OwnMemory {
  /** Guest-physical place and size of the guest's own memory. */
  readonly base: number;
  readonly length: number;
  readonly #layout: MemoryLayout;
  readonly #tables: number;
  readonly #areas: number;
  readonly #windows: number;

  /** Throws RangeError for a layout that reaches beyond 256 GiB. */
  constructor(layout: MemoryLayout, vcpus: number) {
    this.#layout = layout;
    const end = layout.regions.reduce(
      (most, { gpa, length }) => Math.max(most, Number(gpa) + Number(length)),
      0,
    );
    this.base = Math.ceil(end / LARGE) * LARGE;
    this.#windows = Math.min(layout.pageCount, MOST_WINDOWS);
    this.#tables = this.base + 3 * PAGE;
    // One table for each GiB that is used and a few for the windows; more would be a mistake in this
    // arithmetic.
    const tables = 4 + this.#gibs().size + 1 + 2 * Math.ceil((this.#windows * 2) / ENTRIES);
    this.#areas = this.#tables + tables * PAGE;
    this.length = Math.ceil((this.#areas + vcpus * AREA_BYTES - this.base) / LARGE) * LARGE;
    if (this.base + this.length > FETCH_WINDOWS)
      throw new RangeError(`guest memory up to 0x${end.toString(16)}; vCPUs here reach 256 GiB`);
  }

  get pageTables(): number {
    return this.#tables;
  }

  /** A task state segment of zeros: KVM may read there whether a port is allowed, and it is. */
  get taskState(): { readonly base: number; readonly limit: number } {
    return { base: this.base + 2 * PAGE, limit: PAGE - 1 };
  }

  entry(name: keyof typeof ENTRY): number {
    return this.base + ENTRY[name];
  }

  area(index: number): VcpuArea {
    const start = this.#areas + index * AREA_BYTES;
    return { scratch: start, buffer: start + STACK_BYTES, buffer_bytes: AREA_BYTES - STACK_BYTES };
  }

  /**
   * The address at which a byte of a page is executed. The code after its first 4 KiB reports that it was
   * reached.
   */
  executed(page: PageIndex, offset: number): number {
    this.#checkWindow(page);
    return FETCH_WINDOWS + page * 2 * PAGE + offset;
  }

  /** The address that is translated by the entry at a byte of a page. */
  translated(page: PageIndex, offset: number): number {
    this.#checkWindow(page);
    return WALK_WINDOWS + page * LARGE + (offset / 8) * PAGE;
  }

  /** Writes code and page tables into the guest's own memory. */
  write(memory: Uint8Array): void {
    memory.set(GUEST_CODE, 0);
    memory.set(GUEST_CODE.subarray(ENTRY.nothing), PAGE);
    const tables = new TableWriter(memory, this.base, this.#tables, this.#areas);
    for (const gib of this.#gibs())
      for (let at = gib * GIB; at < (gib + 1) * GIB; at += LARGE) tables.mapLarge(at, at);
    for (let page = 0; page < this.#windows; page++) {
      const gpa = Number(this.#layout.gpaOf(page));
      tables.map(this.executed(page, 0), gpa);
      tables.map(this.executed(page, PAGE), this.base + PAGE);
      tables.mapAsTable(this.translated(page, 0), gpa);
    }
  }

  prepare(vm: KvmVm): void {
    raw.ioctl(vm.fd, KVM_SET_TSS_ADDR, TSS_ADDRESS);
  }

  start(vcpu: KvmVcpu): void {
    vcpu.setCpuid(X86_LONG_MODE_CPUID);
    enterUserMode(vcpu, this);
  }

  #checkWindow(page: PageIndex): void {
    if (page >= this.#windows)
      throw new RangeError(`page ${page}: vCPUs execute and walk the first ${this.#windows} only`);
  }

  /** Every GiB that is in use. */
  #gibs(): Set<number> {
    const used = new Set<number>();
    const add = (start: number, length: number): void => {
      for (let gib = Math.floor(start / GIB); gib * GIB < start + length; gib++) used.add(gib);
    };
    for (const { gpa, length } of this.#layout.regions) add(Number(gpa), Number(length));
    add(this.base, 2 * LARGE); // its length is not known yet; a table too many does no harm
    return used;
  }
}

/** Writes four-level page tables, allocating tables from a range of memory. */
class TableWriter {
  readonly #view: DataView;
  readonly #base: number;
  readonly #root: number;
  readonly #end: number;
  #next: number;

  constructor(memory: Uint8Array, base: number, root: number, end: number) {
    this.#view = new DataView(memory.buffer, memory.byteOffset, memory.length);
    this.#base = base;
    this.#root = root;
    this.#next = root + PAGE;
    this.#end = end;
  }

  map(from: number, to: number): void {
    this.#set(from, 1, BigInt(to) | TABLE);
  }

  mapLarge(from: number, to: number): void {
    this.#set(from, 2, BigInt(to) | LARGE_PAGE);
  }

  /** Makes the page at `table` translate the 2 MiB from `from`. */
  mapAsTable(from: number, table: number): void {
    this.#set(from, 2, BigInt(table) | TABLE);
  }

  #set(address: number, level: number, entry: bigint): void {
    let table = this.#root;
    for (let at = 4; at > level; at--) table = this.#below(this.#slot(table, address, at));
    this.#view.setBigUint64(this.#slot(table, address, level), entry, true);
  }

  #slot(table: number, address: number, level: number): number {
    const span = PAGE * ENTRIES ** (level - 1);
    return table - this.#base + (Math.floor(address / span) % ENTRIES) * 8;
  }

  #below(slot: number): number {
    const entry = this.#view.getBigUint64(slot, true);
    if (entry !== 0n) return Number(entry & ~0xfffn);
    if (this.#next === this.#end) throw new RangeError('no room for page tables is left');
    const made = this.#next;
    this.#next += PAGE;
    this.#view.setBigUint64(slot, BigInt(made) | TABLE, true);
    return made;
  }
}
