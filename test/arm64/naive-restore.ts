import type { GuestMemory } from './guest-memory.js';

/*
 * A second, deliberately plain reading of what KVM's restore does: word by word, no cache, no
 * generator, bigints throughout, memory changed as it goes. The oracle that fuzzed images are held to.
 */

export interface NaiveRegisters {
  readonly baser0: bigint;
  readonly baser1: bigint;
  readonly propbaser: bigint;
  readonly pendbasers: readonly bigint[];
  readonly vcpuIds: readonly number[];
  readonly forwarding: boolean;
}

interface NaiveLpi {
  target: number;
  pending: boolean;
  enabled: boolean;
  priority: number;
  apList: number;
  mapped: boolean;
}

export interface NaiveResult {
  readonly status: number;
  readonly lpis: Map<number, NaiveLpi>;
  readonly entries: readonly (readonly [device: number, event: number, intid: number, icid: number])[];
  readonly collections: readonly (readonly [icid: number, target: number])[];
}

class Failure {
  constructor(readonly status: number) {}
}

const PAGES = (baser: bigint): number => (Number(baser & 0xffn) + 1) * 65536;
const ADDRESS = (baser: bigint): bigint => (baser & 0xffff_ffff_0000n) | (((baser >> 12n) & 0xfn) << 48n);

export class NaiveRestore {
  readonly lpis = new Map<number, NaiveLpi>();
  collections: [number, number][] = [];
  devices: { id: number; entries: [number, number, number][] }[] = [];

  constructor(
    private readonly memory: GuestMemory,
    private readonly registers: NaiveRegisters,
  ) {}

  run(): NaiveResult {
    let status = 0;
    try {
      this.restoreCollections();
    } catch (failure) {
      status = this.failed(failure, false);
    }
    if (status === 0) {
      try {
        this.restoreDevices();
      } catch (failure) {
        status = this.failed(failure, true);
      }
    }
    const entries = this.devices.flatMap(({ id, entries: list }) =>
      list.map(([event, intid, icid]) => [id, event, intid, icid] as const),
    );
    return { status, lpis: this.lpis, entries, collections: this.collections };
  }

  private failed(failure: unknown, devices: boolean): number {
    if (!(failure instanceof Failure)) throw failure;
    this.collections = [];
    if (devices) {
      this.devices = [];
      for (const [intid, lpi] of this.lpis) {
        lpi.mapped = false;
        if (lpi.apList < 0) this.lpis.delete(intid);
      }
    }
    return failure.status;
  }

  private word(gpa: bigint): bigint {
    if (!this.memory.touch(gpa, 'R')) throw new Failure(-14);
    return this.memory.word(gpa);
  }

  private byte(gpa: bigint): number {
    if (!this.memory.touch(gpa, 'R')) throw new Failure(-14);
    return this.memory.byte(gpa);
  }

  private restoreCollections(): void {
    const { baser1, vcpuIds } = this.registers;
    if (baser1 >> 63n === 0n) return;
    for (let at = 0; at < PAGES(baser1); at += 8) {
      const word = this.word(ADDRESS(baser1) + BigInt(at));
      if (word >> 63n === 0n) return;
      const target = Number((word >> 16n) & 0xffff_ffffn);
      const icid = Number(word & 0xffffn);
      if (target !== 0xffff_ffff && !vcpuIds.includes(target)) throw new Failure(-22);
      if (this.collections.some(([id]) => id === icid)) throw new Failure(-17);
      if (icid >= PAGES(baser1) / 8) throw new Failure(-22);
      if (!this.memory.visible(ADDRESS(baser1) + BigInt(icid * 8))) throw new Failure(-22);
      this.collections.push([icid, target]);
    }
  }

  private restoreDevices(): void {
    const { baser0 } = this.registers;
    if (baser0 >> 63n === 0n) return;
    const base = ADDRESS(baser0);
    if (((baser0 >> 62n) & 1n) === 0n) {
      this.scan(base, PAGES(baser0), 0, (id, word) => this.device(id, word));
      return;
    }
    this.scan(base, PAGES(baser0), 0, (index, word) => {
      if (word >> 63n === 0n) return 1;
      const block = word & 0xf_ffff_ffff_0000n;
      return this.scan(block, 65536, index * 8192, (id, entry) => this.device(id, entry)) ? 0 : 1;
    });
  }

  /** True if the last entry was found. */
  private scan(
    base: bigint,
    bytes: number,
    firstId: number,
    visit: (id: number, word: bigint) => number,
  ): boolean {
    for (let at = 0; ;) {
      const here = base + BigInt(at);
      if (here % 4096n === 0n && at + 4096 <= bytes && !this.memory.pages.has(here)) {
        this.word(here); // a page that was never written is all invalid entries: one step for all of them
        at += 4096;
        if (at >= bytes) return false;
        continue;
      }
      const step = visit(firstId + at / 8, this.word(base + BigInt(at)));
      if (step === 0) return true;
      at += step * 8;
      if (at >= bytes) return false;
    }
  }

  private device(id: number, word: bigint): number {
    if (word >> 63n === 0n) return 1;
    const bits = Number(word & 0x1fn) + 1;
    const itt = ((word >> 5n) & 0xfff_ffff_ffffn) << 8n;
    if (bits > 16) throw new Failure(-22);
    this.checkDeviceId(id);
    const device = { id, entries: [] as [number, number, number][] };
    this.devices.push(device);
    this.scan(itt, 2 ** bits * 8, 0, (event, entry) => this.entry(device, 2 ** bits, event, entry));
    return Number((word >> 49n) & 0x3fffn);
  }

  private checkDeviceId(id: number): void {
    const { baser0 } = this.registers;
    if (id > 65535) throw new Failure(-22);
    let address = ADDRESS(baser0) + BigInt(id * 8);
    if (((baser0 >> 62n) & 1n) === 1n) {
      const word = this.word(ADDRESS(baser0) + BigInt(Math.floor(id / 8192) * 8));
      address = (word & 0xf_ffff_ffff_0000n) + BigInt((id % 8192) * 8);
    } else if (id >= PAGES(baser0) / 8) throw new Failure(-22);
    if (!this.memory.visible(address)) throw new Failure(-22);
  }

  private entry(
    device: { entries: [number, number, number][] },
    events: number,
    event: number,
    word: bigint,
  ): number {
    const intid = Number((word >> 16n) & 0xffff_ffffn);
    if (intid === 0) return 1;
    const next = Number(word >> 48n);
    if (intid < 8192 || event + next >= events) throw new Failure(-22);
    const icid = Number(word & 0xffffn);
    const collection = this.collections.find(([id]) => id === icid);
    if (collection === undefined) throw new Failure(-22);
    const lpi = this.lpis.get(intid);
    if (lpi?.mapped === true) return next;
    if (lpi !== undefined) lpi.mapped = true;
    else this.create(intid, this.registers.vcpuIds.indexOf(collection[1]));
    device.entries.push([event, intid, icid]);
    return next;
  }

  private create(intid: number, target: number): void {
    const { propbaser, pendbasers, forwarding } = this.registers;
    const configuration = this.byte((propbaser & 0xf_ffff_ffff_f000n) + BigInt(intid - 8192));
    const enabled = (configuration & 1) === 1;
    let pending = false;
    if (target >= 0) {
      const at = (pendbasers[target]! & 0xf_ffff_ffff_0000n) + BigInt(Math.floor(intid / 8));
      const byte = this.byte(at);
      pending = ((byte >> (intid % 8)) & 1) === 1;
      if (pending) this.memory.setByte(at, byte & ~(1 << (intid % 8)));
    }
    const apList = forwarding && enabled && pending ? target : -1;
    this.lpis.set(intid, { target, pending, enabled, priority: configuration & 0xfc, apList, mapped: true });
  }
}
