import { type PageIndex, type PageRange } from './address.js';
import { type AccessClass, type AccessSite, SITE_NAMES, classOf } from './access.js';

/**
 * Why an access was stopped, in userfaultfd's words. `missing`: no page. `minor`: the page cache has
 * it, the mapping does not. `write-protect`: a write to a protected page. `rwp`: any access to a
 * protected page (Linux 7.3). KVM's memory-fault and MMIO exits for a page that is not there are
 * `missing` faults with a `vcpu`.
 */
export type FaultKind = 'missing' | 'minor' | 'write-protect' | 'rwp';

/** One stopped access. */
export interface Fault {
  readonly kind: FaultKind;
  readonly page: PageIndex;
  /** Whether the access was a write, where the mechanism says so. */
  readonly write: boolean | undefined;
  /** Where the access came from, where the mechanism knows. */
  readonly site: AccessSite | undefined;
  readonly class: AccessClass | undefined;
  /** Kernel thread id of the accessor, where known. */
  readonly thread: number | undefined;
  /** vcpu_id, where the fault is a vCPU's. */
  readonly vcpu: number | undefined;
}

/**
 * An access that waits at an address outside the layout, in memory that is registered with the userfaultfd
 * all the same: registered later, grown by mremap(2), a stack that has grown, or left behind by
 * MREMAP_DONTUNMAP.
 */
export interface OutsideFault {
  readonly kind: FaultKind;
  /** In the address space that is served. */
  readonly address: number;
  readonly write: boolean | undefined;
  /** Kernel thread id of the accessor, where known. */
  readonly thread: number | undefined;
}

/**
 * What other threads did to the memory, in userfaultfd's words. Read in the kernel's order, but a fault can
 * be read ahead of an earlier `remove`; so a batch's events are handled before its faults.
 *
 * - `remove`: the pages were removed (MADV_DONTNEED, MADV_REMOVE) and read as zeros from now on.
 * - `unmap`: the range is unmapped.
 * - `remap`: the range moved; the port has already followed it.
 * - `fork`: the memory now exists twice; `fd` serves the child's.
 */
export type MemoryEvent =
  | { readonly kind: 'remove'; readonly pages: PageRange }
  | { readonly kind: 'unmap'; readonly pages: PageRange }
  | { readonly kind: 'remap'; readonly pages: PageRange; readonly to: number }
  | { readonly kind: 'fork'; readonly fd: number };

/** Row kinds of a {@link FaultBatch}, in one column. Faults come before {@link ROW.remove}. */
export const ROW = {
  missing: 0,
  minor: 1,
  'write-protect': 2,
  rwp: 3,
  remove: 4,
  unmap: 5,
  remap: 6,
  fork: 7,
} as const;

const KINDS = Object.keys(ROW) as (keyof typeof ROW)[];

/** Whether an access was a write. */
export const WRITE = { no: 0, yes: 1, unknown: 2 } as const;

const NONE = 0xffff_ffff;
/** In the page column: the fault is at an address outside the layout. */
const OUTSIDE = -1;

/**
 * A fixed number of rows, each a fault or an event, in columns: what {@link FaultPort.take} fills. One
 * is made and used again and again; a row is good until the next `take`.
 */
export class FaultBatch {
  readonly capacity: number;
  count = 0;
  /** A value of {@link ROW}. */
  readonly kind: Uint8Array;
  /** First page of the fault or event. */
  readonly page: Float64Array;
  /** Pages concerned: 1 for a fault. */
  readonly span: Float64Array;
  /** A value of {@link WRITE}. */
  readonly write: Uint8Array;
  /** Index into {@link SITE_NAMES}, or 255. */
  readonly site: Uint8Array;
  readonly thread: Uint32Array;
  readonly vcpu: Uint32Array;
  /**
   * `remap`: the new host address. `fork`: the child's file descriptor. A fault outside the layout: its
   * address.
   */
  readonly extra: Float64Array;

  constructor(capacity: number) {
    if (!Number.isInteger(capacity) || capacity < 1) throw new RangeError(`a batch of ${capacity} rows`);
    this.capacity = capacity;
    this.kind = new Uint8Array(capacity);
    this.page = new Float64Array(capacity);
    this.span = new Float64Array(capacity);
    this.write = new Uint8Array(capacity);
    this.site = new Uint8Array(capacity);
    this.thread = new Uint32Array(capacity);
    this.vcpu = new Uint32Array(capacity);
    this.extra = new Float64Array(capacity);
  }

  get full(): boolean {
    return this.count === this.capacity;
  }

  clear(): void {
    this.count = 0;
  }

  /** Appends a fault without making an object of it: the hot path. `write` is a value of {@link WRITE}. */
  pushFault(kind: 0 | 1 | 2 | 3, page: PageIndex, write: number, thread = NONE): void {
    const row = this.count++;
    this.kind[row] = kind;
    this.page[row] = page;
    this.span[row] = 1;
    this.write[row] = write;
    this.site[row] = 255;
    this.thread[row] = thread;
    this.vcpu[row] = NONE;
  }

  /** Appends a fault. The batch must not be full. */
  push(fault: Pick<Fault, 'kind' | 'page'> & Partial<Fault>): void {
    this.pushFault(
      ROW[fault.kind],
      fault.page,
      fault.write === undefined ? WRITE.unknown : fault.write ? WRITE.yes : WRITE.no,
      fault.thread,
    );
    const row = this.count - 1;
    this.site[row] = fault.site === undefined ? 255 : SITE_NAMES.indexOf(fault.site);
    this.vcpu[row] = fault.vcpu ?? NONE;
  }

  /**
   * Appends a fault at an address outside the layout. `write` is a value of {@link WRITE}. The batch must not
   * be full.
   */
  pushOutside(kind: 0 | 1 | 2 | 3, address: number, write: number, thread = NONE): void {
    this.pushFault(kind, OUTSIDE, write, thread);
    this.extra[this.count - 1] = address;
  }

  /** Appends an event. The batch must not be full. */
  pushEvent(event: MemoryEvent): void {
    const row = this.count++;
    this.kind[row] = ROW[event.kind];
    this.page[row] = event.kind === 'fork' ? 0 : event.pages.first;
    this.span[row] = event.kind === 'fork' ? 0 : event.pages.count;
    this.extra[row] = event.kind === 'fork' ? event.fd : event.kind === 'remap' ? event.to : 0;
  }

  /** Whether the fault in a row names its vCPU: then it is an exit of that vCPU. */
  isVcpus(row: number): boolean {
    return this.vcpu[row] !== NONE;
  }

  /** Whether the fault in a row is at an address outside the layout. */
  isOutside(row: number): boolean {
    return this.page[row] === OUTSIDE;
  }

  /** The fault outside the layout in a row, as an object. */
  outside(row: number): OutsideFault {
    const { kind, write, thread } = this.fault(row);
    return { kind, address: this.extra[row]!, write, thread };
  }

  isEvent(row: number): boolean {
    return this.kind[row]! >= ROW.remove;
  }

  /** The fault in a row, as an object: for display and policy, not for the hot path. */
  fault(row: number): Fault {
    const site = SITE_NAMES[this.site[row]!];
    const write = this.write[row]!;
    return {
      kind: KINDS[this.kind[row]!] as FaultKind,
      page: this.page[row]!,
      write: write === WRITE.unknown ? undefined : write === WRITE.yes,
      site,
      class: site ? classOf(site) : this.isVcpus(row) ? 'vcpu' : undefined,
      thread: this.thread[row] === NONE ? undefined : this.thread[row],
      vcpu: this.vcpu[row] === NONE ? undefined : this.vcpu[row],
    };
  }

  /** The event in a row, as an object. */
  event(row: number): MemoryEvent {
    const kind = KINDS[this.kind[row]!] as MemoryEvent['kind'];
    const pages = { first: this.page[row]!, count: this.span[row]! };
    if (kind === 'fork') return { kind, fd: this.extra[row]! };
    return kind === 'remap' ? { kind, pages, to: this.extra[row]! } : { kind, pages };
  }
}
