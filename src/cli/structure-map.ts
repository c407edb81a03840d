import { type Access, driveSync, type Gpa, type GpaRange, type ProgramMemory } from '../api/index.js';
import {
  GICR,
  gicrPendbaser,
  gicrPropbaser,
  GITS,
  gitsBaser,
  gitsCbaser,
  TABLE_PAGE_BYTES,
  type Vgic,
} from '../arm64/index.js';

interface Extent {
  readonly name: string;
  readonly start: bigint;
  readonly end: bigint;
}

/** The pending table of a vCPU: a bit for each of 2^16 interrupts and more, but no larger than its alignment. */
const PENDING_TABLE_BYTES = 0x1_0000n;

/**
 * Which structure of the GIC or the ITS a guest-physical address belongs to: from the registers, and from what
 * a program hints as it learns where second-level tables are.
 */
export class StructureMap {
  readonly #extents: Extent[] = [];

  constructor(vgic: Vgic, vcpus: number) {
    const its = (offset: number): bigint => vgic.readItsRegister(0, offset).value;
    const device = gitsBaser.decode(its(GITS.BASER0));
    const collection = gitsBaser.decode(its(GITS.BASER1));
    const queue = gitsCbaser.decode(its(GITS.CBASER));
    const name = device.indirect ? 'level-1-table' : 'device-table';
    this.#add(name, device.address, BigInt(device.pages * TABLE_PAGE_BYTES));
    this.#add('collection-table', collection.address, BigInt(collection.pages * TABLE_PAGE_BYTES));
    this.#add('command-queue', queue.address, BigInt(queue.pages) * 4096n);
    const config = gicrPropbaser.decode(vgic.readRedistributorRegister(0, GICR.PROPBASER));
    this.#add('lpi-configuration', config.address, 1n << BigInt(config.idBits));
    for (let vcpu = 0; vcpu < vcpus; vcpu++) {
      const { address } = gicrPendbaser.decode(vgic.readRedistributorRegister(vcpu, GICR.PENDBASER));
      this.#add('lpi-pending', address, PENDING_TABLE_BYTES);
    }
  }

  /** Notes what a program says it may read soon. */
  hinted(why: string, ranges: readonly GpaRange[]): void {
    for (const { start, length } of ranges) {
      if (this.nameOf(start) !== why) this.#add(why, start, length);
    }
  }

  /** For {@link DriveOptions.trace}. */
  readonly trace = ({ ask }: Access): void => {
    if (ask.ask === 'hint') this.hinted(ask.why, ask.ranges);
  };

  /** The structure at an address, or `?`. What was hinted last wins: it is the more particular. */
  nameOf(address: Gpa): string {
    return this.#extents.findLast(({ start, end }) => address >= start && address < end)?.name ?? '?';
  }

  /** The end of the last structure inside a stretch of memory. */
  endWithin(start: bigint, length: bigint): bigint {
    const inside = this.#extents.filter((extent) => extent.start >= start && extent.end <= start + length);
    return inside.reduce((last, { end }) => (end > last ? end : last), start);
  }

  #add(name: string, start: bigint, length: bigint): void {
    this.#extents.push({ name, start, end: start + length });
  }
}

/** The structures that restoring the tables goes through, on memory that is all there. */
export function structuresOf(vgic: Vgic, vcpus: number, memory: ProgramMemory): StructureMap {
  const map = new StructureMap(vgic, vcpus);
  const dry = { ...readOnly(memory), writeSync() {} }; // what it consumes, it consumes when it is done for real
  driveSync(vgic.clone().restoreTables(), dry, { trace: map.trace });
  return map;
}

const readOnly = (memory: ProgramMemory): ProgramMemory => ({
  layout: memory.layout,
  isPresent: (range) => memory.isPresent(range),
  readSync: (address, length) => memory.readSync(address, length),
  writeSync: (address, bytes) => memory.writeSync(address, bytes),
  bring: (ranges) => memory.bring(ranges),
  hint: (ranges) => memory.hint(ranges),
});
