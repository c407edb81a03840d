import { ite, dte, cte, level1 } from '../../src/arm64/table-entries.js';
import { GITS } from '../../src/arm64/registers.js';
import { Vgic } from '../../src/arm64/vgic.js';
import type { VgicOptions } from '../../src/arm64/vgic-state.js';
import { GuestMemory } from './guest-memory.js';

/** Where the tables of a test image are. */
export const LAYOUT = {
  base: 0x8000_0000n,
  configuration: 0x8000_0000n,
  pending: (vcpu: number): bigint => 0x8010_0000n + BigInt(vcpu) * 0x1_0000n,
  collections: 0x8005_0000n,
  queue: 0x8007_0000n,
  devices: 0x8008_0000n,
  blocks: (n: number): bigint => 0x8020_0000n + BigInt(n) * 0x1_0000n,
  itts: 0x8100_0000n,
  itsBase: 0x808_0000n,
} as const;

export interface ImageEntry {
  readonly event: number;
  readonly intid: number;
  readonly collection: number;
  readonly configuration: number;
  readonly pending: boolean;
}

export interface ImageDevice {
  readonly id: number;
  readonly eventBits: number;
  readonly entries: readonly ImageEntry[];
}

export interface Image {
  readonly vcpuIds: readonly number[];
  readonly indirect: boolean;
  /** ICID and vCPU index, or -1 for an unmapped one. */
  readonly collections: readonly { readonly id: number; readonly vcpu: number }[];
  readonly devices: readonly ImageDevice[];
}

/** Writes an image as a save would have, and says where each device's ITT is. */
export function buildImage(
  image: Image,
  memory = new GuestMemory(),
): { memory: GuestMemory; itts: bigint[] } {
  const targets = new Map(image.collections.map(({ id, vcpu }) => [id, vcpu]));
  image.collections.forEach(({ id, vcpu }, index) => {
    const target = vcpu < 0 ? 0xffff_ffff : image.vcpuIds[vcpu]!;
    memory.setWord(
      LAYOUT.collections + BigInt(index * 8),
      cte.encode({ collection: id, target, valid: true }),
    );
  });
  const itts: bigint[] = [];
  let itt: bigint = LAYOUT.itts;
  image.devices.forEach((device, index) => {
    itts.push(itt);
    const following = image.devices[index + 1];
    const next = following === undefined ? 0 : Math.min(following.id - device.id, 16383);
    const word = dte.encode({ eventBits: device.eventBits, itt, next, valid: true });
    memory.setWord(deviceEntry(memory, image.indirect, device.id), word);
    writeEntries(memory, device, itt, targets);
    const bytes = BigInt(2 ** device.eventBits * 8);
    itt += bytes < 256n ? 256n : bytes;
  });
  return { memory, itts };
}

function deviceEntry(memory: GuestMemory, indirect: boolean, id: number): bigint {
  if (!indirect) return LAYOUT.devices + BigInt(id * 8);
  const block = Math.floor(id / 8192);
  const address = LAYOUT.blocks(block);
  memory.setWord(LAYOUT.devices + BigInt(block * 8), level1.encode({ address, valid: true }));
  return address + BigInt((id % 8192) * 8);
}

function writeEntries(
  memory: GuestMemory,
  device: ImageDevice,
  itt: bigint,
  targets: Map<number, number>,
): void {
  device.entries.forEach(({ event, intid, collection, configuration, pending }, index) => {
    const following = device.entries[index + 1];
    const next = following === undefined ? 0 : following.event - event;
    memory.setWord(itt + BigInt(event * 8), ite.encode({ collection, intid, next }));
    memory.setByte(LAYOUT.configuration + BigInt(intid - 8192), configuration);
    const vcpu = targets.get(collection) ?? -1;
    if (!pending || vcpu < 0) return;
    const at = LAYOUT.pending(vcpu) + BigInt(intid >>> 3);
    memory.setByte(at, memory.byte(at) | (1 << (intid & 7)));
  });
}

export interface PreparedOptions extends Omit<VgicOptions, 'vcpuIds'> {
  readonly vcpuIds: readonly number[];
  readonly indirect?: boolean;
  readonly devicePages?: number;
  readonly forwarding?: boolean;
}

/** A GIC with its registers set as the documented restore order has them before the tables. */
export function prepareVgic(memory: GuestMemory, options: PreparedOptions): Vgic {
  const vgic = new Vgic({ itsBases: [LAYOUT.itsBase], ...options });
  options.vcpuIds.forEach((_, vcpu) => {
    memory.run(vgic.writeRedistributorRegister(vcpu, 0x70, LAYOUT.configuration | 0x78fn, 8));
    memory.run(vgic.writeRedistributorRegister(vcpu, 0x78, LAYOUT.pending(vcpu) | 0x780n, 8));
    memory.run(vgic.writeRedistributorRegister(vcpu, 0x0, 1n, 4));
  });
  if (options.forwarding === true) vgic.writeDistributorRegister(0, 0x12n);
  const indirect = options.indirect === true ? 1n << 62n : 0n;
  const pages = BigInt((options.devicePages ?? 8) - 1);
  memory.run(vgic.writeItsRegister(0, GITS.CBASER, (1n << 63n) | LAYOUT.queue | 0xfn));
  memory.run(vgic.writeItsRegister(0, GITS.BASER0, (1n << 63n) | indirect | LAYOUT.devices | pages));
  memory.run(vgic.writeItsRegister(0, GITS.BASER1, (1n << 63n) | LAYOUT.collections));
  return vgic;
}

/** State that a restore built, as one comparable value. */
export const stateOf = (vgic: Vgic): unknown => ({
  lpis: [...vgic.lpis()],
  entries: [...vgic.entries()],
  collections: [...vgic.collections()],
  devices: [...vgic.devices()],
});
