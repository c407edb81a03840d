import { errnoName, type Gpa, type Program } from '../api/index.js';
import { UNMAPPED_TARGET } from './collection.js';
import { FIRST_LPI } from './lpi-store.js';
import { configurationAddress, decodeConfiguration, pendingAddress, pendingMask } from './lpi-tables.js';
import { gicrPendbaser, gicrPropbaser, gitsBaser } from './registers.js';
import { deviceEntry, ENTRY_BYTES, ID_BITS, LEVEL2_ENTRIES, TABLE_PAGE_BYTES } from './table-entries.js';
import { blockAddress } from './table-address.js';
import { type Address, type Window, Windows } from './windows.js';
import { Work, WorkLimitError } from './work.js';

/** The registers that say where a saved image is. */
export interface DumpRegisters {
  readonly baser0: bigint;
  readonly baser1: bigint;
  readonly propbaser: bigint;
  /** GICR_PENDBASER by the RDbase of its vCPU: vcpu_id, or the index on kernels that take that. */
  readonly pendbasers: ReadonlyMap<number, bigint>;
}

export interface DumpOptions {
  /** Entries of translation tables shown (default 2^20). */
  readonly maxEntries?: number;
  /** Windows of 4 KiB read (default 65536, 256 MiB): hostile tables can name far more. */
  readonly maxWindows?: number;
  /** Table entries looked at (default 2^24): tables that name one another's pages can hold far more. */
  readonly maxSteps?: number;
}

export interface DumpedCollection {
  readonly id: number;
  /** RDbase, or undefined for a collection that is not mapped. */
  readonly target: number | undefined;
}

export interface DumpedEntry {
  readonly event: number;
  readonly intid: number;
  readonly collection: number;
  /** From the configuration table; undefined if it cannot be read. */
  readonly enabled: boolean | undefined;
  readonly priority: number | undefined;
  /** From the target's pending table; undefined if there is no target or it cannot be read. */
  readonly pending: boolean | undefined;
}

export interface DumpedDevice {
  readonly id: number;
  readonly eventBits: number;
  readonly itt: Gpa;
  readonly entries: readonly DumpedEntry[];
}

/** Something that a restore would refuse, or that cannot be read. */
export interface DumpProblem {
  readonly at: Gpa;
  readonly what: string;
}

/** A saved image, decoded. */
export interface ItsDump {
  readonly collections: readonly DumpedCollection[];
  readonly devices: readonly DumpedDevice[];
  readonly problems: readonly DumpProblem[];
  /** False if a bound cut the walk short. */
  readonly complete: boolean;
  /** Which bound cut it short first, if one did. */
  readonly cutBy: keyof DumpOptions | undefined;
}

/**
 * Decodes a saved image: the walk of a restore, but nothing is refused; what a restore would refuse
 * is listed and stepped over. Changes neither memory nor any GIC.
 *
 * Who may block: the driver, on the pages read. Errors: none; an address that cannot be read is a problem
 * in the result. Source: Documentation/virt/kvm/devices/arm-vgic-its.rst, ITS Table ABI REV0.
 */
export function* dumpImage(registers: DumpRegisters, options: DumpOptions = {}): Program<ItsDump> {
  const dump = new Dump(registers, options);
  try {
    yield* dump.collections();
    yield* dump.devices();
  } catch (error) {
    if (!(error instanceof WorkLimitError)) throw error;
    dump.cut('maxSteps');
  }
  return dump.result();
}

/** Decodes every valid entry of a dense piece of a translation table, whatever `next` says. */
export function decodeEntries(bytes: Uint8Array, firstEvent = 0): Omit<DumpedEntry, keyof LpiTableView>[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const entries: { event: number; intid: number; collection: number }[] = [];
  for (let at = 0; at + ENTRY_BYTES <= bytes.length; at += ENTRY_BYTES) {
    const low = view.getUint32(at, true);
    const intid = (view.getUint16(at + 4, true) << 16) | (low >>> 16);
    if (intid === 0) continue;
    entries.push({ event: firstEvent + at / ENTRY_BYTES, intid: intid >>> 0, collection: low & 0xffff });
  }
  return entries;
}

type LpiTableView = Pick<DumpedEntry, 'enabled' | 'priority' | 'pending'>;

class Dump {
  readonly #windows = new Windows(false);
  readonly #collections = new Map<number, DumpedCollection>();
  readonly #devices: DumpedDevice[] = [];
  readonly #problems: DumpProblem[] = [];
  readonly #configuration: Address;
  #entriesLeft: number;
  #windowsLeft: number;
  #cutBy: keyof DumpOptions | undefined;
  readonly #work: Work;

  constructor(
    private readonly registers: DumpRegisters,
    { maxEntries, maxWindows, maxSteps }: DumpOptions,
  ) {
    this.#work = new Work(maxSteps === undefined ? {} : { maxSteps });
    this.#entriesLeft = maxEntries ?? 2 ** 20;
    this.#windowsLeft = maxWindows ?? 65536;
    this.#configuration = Number(gicrPropbaser.decode(registers.propbaser).address);
  }

  result(): ItsDump {
    return {
      collections: [...this.#collections.values()],
      devices: this.#devices,
      problems: this.#problems,
      complete: this.#cutBy === undefined,
      cutBy: this.#cutBy,
    };
  }

  cut(by: keyof DumpOptions): void {
    this.#cutBy ??= by;
  }

  *collections(): Program<void> {
    const { valid, address, pages } = gitsBaser.decode(this.registers.baser1);
    if (!valid) return;
    const start = Number(address);
    for (let at = start; at < start + pages * TABLE_PAGE_BYTES; at += ENTRY_BYTES) {
      if (this.#work.step()) yield* this.#work.pause();
      const window = yield* this.#window(at);
      if (window === undefined) return;
      const high = window.view.getUint32(at - window.start + 4, true);
      if (high >>> 31 === 0) return;
      const low = window.view.getUint32(at - window.start, true);
      const target = (high & 0xffff) * 65536 + (low >>> 16);
      const id = low & 0xffff;
      if (this.#collections.has(id)) this.#problem(at, `collection ${id} a second time`);
      else this.#collections.set(id, { id, target: target === UNMAPPED_TARGET ? undefined : target });
    }
  }

  *devices(): Program<void> {
    const { valid, indirect, address, pages } = gitsBaser.decode(this.registers.baser0);
    if (!valid) return;
    const start = Number(address);
    const bytes = pages * TABLE_PAGE_BYTES;
    if (!indirect) {
      yield* this.#deviceTable(start, bytes, 0);
      return;
    }
    for (let index = 0; index < bytes / ENTRY_BYTES; index++) {
      if (this.#work.step()) yield* this.#work.pause();
      const at = start + index * ENTRY_BYTES;
      const window = yield* this.#window(at);
      if (window === undefined) return;
      const high = window.view.getUint32(at - window.start + 4, true);
      if (high >>> 31 === 0) continue;
      const block = blockAddress(window.view.getUint32(at - window.start, true), high);
      if (yield* this.#deviceTable(block, TABLE_PAGE_BYTES, index * LEVEL2_ENTRIES)) return;
    }
  }

  /** True if the last device was found, or the walk cannot go on. */
  *#deviceTable(start: Address, bytes: number, firstId: number): Program<boolean> {
    for (let offset = 0; offset < bytes;) {
      if (this.#work.step()) yield* this.#work.pause();
      const at = start + offset;
      const window = yield* this.#window(at);
      if (window === undefined) return true;
      const high = window.view.getUint32(at - window.start + 4, true);
      let step = 1;
      if (high >>> 31 === 1) {
        const entry = deviceEntry(window.view.getUint32(at - window.start, true), high);
        const id = firstId + offset / ENTRY_BYTES;
        if (entry.eventBits > ID_BITS) this.#problem(at, `device ${id} has ${entry.eventBits} event bits`);
        else yield* this.#device(id, entry);
        if (entry.next === 0) return true;
        if (this.#entriesLeft <= 0) {
          this.cut('maxEntries');
          return true;
        }
        step = entry.next;
      }
      offset += step * ENTRY_BYTES;
    }
    return false;
  }

  *#device(id: number, { itt, eventBits }: { itt: Address; eventBits: number }): Program<void> {
    const entries: DumpedEntry[] = [];
    this.#devices.push({ id, eventBits, itt: BigInt(itt) as Gpa, entries });
    const events = 2 ** eventBits;
    for (let event = 0; event < events;) {
      if (this.#work.step()) yield* this.#work.pause();
      const at = itt + event * ENTRY_BYTES;
      const window = this.#windows.known(at) ?? (yield* this.#window(at));
      if (window === undefined) return;
      const low = window.view.getUint32(at - window.start, true);
      const high = window.view.getUint32(at - window.start + 4, true);
      const intid = (high & 0xffff) * 65536 + (low >>> 16);
      let step = 1;
      if (intid !== 0) {
        if (this.#entriesLeft-- <= 0) return this.cut('maxEntries');
        step = high >>> 16;
        entries.push(yield* this.#entry(at, event, intid, low & 0xffff));
        if (event + step >= events) this.#problem(at, `next ${step} of event ${event} leads past the table`);
        if (step === 0) return;
      }
      event += step;
    }
  }

  *#entry(at: Address, event: number, intid: number, collection: number): Program<DumpedEntry> {
    const unknown = { enabled: undefined, priority: undefined, pending: undefined };
    if (intid < FIRST_LPI) {
      this.#problem(at, `INTID ${intid} is no LPI`);
      return { event, intid, collection, ...unknown };
    }
    const home = this.#collections.get(collection);
    if (home === undefined) this.#problem(at, `collection ${collection} does not exist`);
    const configurationAt = configurationAddress(this.#configuration, intid);
    const configuration = yield* this.#byte(configurationAt);
    const decoded = configuration === undefined ? undefined : decodeConfiguration(configuration);
    const pendbaser = this.registers.pendbasers.get(home?.target ?? -1);
    let pending: boolean | undefined;
    if (pendbaser !== undefined) {
      const table = Number(gicrPendbaser.decode(pendbaser).address);
      const byte = yield* this.#byte(pendingAddress(table, intid));
      pending = byte === undefined ? undefined : (byte & pendingMask(intid)) !== 0;
    }
    const { enabled, priority } = decoded ?? unknown;
    return { event, intid, collection, enabled, priority, pending };
  }

  *#byte(at: Address): Program<number | undefined> {
    const window = this.#windows.known(at) ?? (yield* this.#window(at));
    return window?.bytes[at - window.start];
  }

  *#window(at: Address): Program<Window | undefined> {
    const known = this.#windows.known(at);
    if (known !== undefined) return known;
    if (this.#windowsLeft-- <= 0) return void this.cut('maxWindows');
    const window = yield* this.#windows.read(at);
    if (typeof window !== 'number') return window;
    this.#problem(at, `cannot be read: ${errnoName(-window)}`);
    return undefined;
  }

  #problem(at: Address, what: string): void {
    if (this.#problems.length < 1000) this.#problems.push({ at: BigInt(at) as Gpa, what });
  }
}
